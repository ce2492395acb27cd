"""Exports of datasets as plain folders of PNG, NIfTI or DICOM files.

``datasets`` can load such a folder as ``imagefolder`` or ``niftifolder``.
"""

"""Exports of datasets as plain folders of PNG or NIfTI files.

``datasets`` can load such a folder as ``imagefolder`` or ``niftifolder``.
"""

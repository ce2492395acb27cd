"""Datasets as plain folders of files, for programs that read pictures or NIfTI.

A folder also is what ``datasets`` loads as ``imagefolder`` or ``niftifolder``.
"""

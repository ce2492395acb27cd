"""The dataset on disk: rows, shards, manifests and versions.

Knows voxels, files and bytes, but nothing of masks, models or inpainting.
"""

"""Measures of a sample: one small file each, on numpy arrays, knowing nothing of recipes or models.

``table.MEASURES`` lists those that every dataset stores as columns.

Every measure takes HU of the same shape as the boolean mask: (H, W), (I, J, K), or a slice as a
volume one voxel thick, in which the thin axis is ignored. ``range_hu`` clips both pictures first:
give a codec's ``range_hu``, so that a model is not blamed for what its codec cannot express.
"""

"""Measures of a sample: one small file each, on numpy arrays, independent of recipes and models.

``table.MEASURES`` lists those that every dataset stores as columns.

All functions take the original and the painted picture in HU and a boolean mask, of one shape:
(H, W), (I, J, K), or a slice as a volume one voxel thick, whose thin axis is ignored. They raise a
``ValueError`` if a shape differs or the mask is not boolean. ``range_hu`` is the least and the
greatest HU to clip both pictures to, or None: with the range of a codec, a model is not blamed for
values that its codec cannot express.
"""

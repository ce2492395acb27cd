"""Lossless volumes: gzipped NIfTI for HU, masks and label maps, as columns of a dataset.

The same array and affine give the same bytes with the same ISA-L build; across builds only the
decoded voxels are promised.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.errors import VerifyError
from synthct.volume import HU_MAX, HU_MIN, Affine, Array, Volume, nifti_bytes, nifti_header

#: Bytes of a NIfTI-1 file before its voxels, where there are no extensions.
_HEADER = 352


def encode_hu(hu: npt.NDArray[np.int16], affine: Affine) -> bytes:
    """HU (I, J, K) within -1024..3071."""
    if hu.size and not (hu.min() >= HU_MIN and hu.max() <= HU_MAX):
        raise ValueError(f"HU {hu.min()}..{hu.max()} are not within {HU_MIN}..{HU_MAX}")
    return nifti_bytes(Volume(hu, affine), compress=True)


def decode_hu(data: bytes, affine: Affine) -> npt.NDArray[np.int16]:
    """HU (I, J, K), canonical.

    Raises:
        VerifyError: If the bytes are damaged, not int16, or hold anything beside these voxels.
    """
    return _decode(data, affine, (np.int16,))


def encode_mask(mask: npt.NDArray[np.bool_], affine: Affine) -> bytes:
    """A region (I, J, K) as uint8: 1 inside, 0 outside."""
    return nifti_bytes(Volume(mask, affine), compress=True)


def decode_mask(data: bytes, affine: Affine) -> npt.NDArray[np.bool_]:
    """The region (I, J, K) of a file of 0 and 1.

    Raises:
        VerifyError: If the bytes are damaged, or hold other values.
    """
    stored = _decode(data, affine, (np.uint8,))
    if stored.size and stored.max() > 1:
        raise VerifyError("a mask holds values other than 0 and 1")
    return stored.astype(bool)


def encode_labels(labels: npt.NDArray[Any], affine: Affine) -> bytes:
    """Label values (I, J, K), uint8 or uint16."""
    if labels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"a label map is uint8 or uint16, not {labels.dtype}")
    return nifti_bytes(Volume(labels, affine), compress=True)


def decode_labels(data: bytes, affine: Affine) -> npt.NDArray[Any]:
    """Label values (I, J, K), uint8 or uint16.

    Raises:
        VerifyError: If the bytes are damaged, or of another type.
    """
    return _decode(data, affine, (np.uint8, np.uint16))


def _decode(data: bytes, affine: Affine, types: tuple[Any, ...]) -> Array:
    """The voxels of a file that holds nothing else: every byte follows from them and the affine."""
    import nibabel as nib
    from isal import isal_zlib
    from nibabel.spatialimages import HeaderDataError

    # one member with its checksum, which nibabel ignores
    stream = isal_zlib.decompressobj(wbits=31)
    try:
        raw = stream.decompress(data)
    except isal_zlib.error as err:  # type: ignore[misc]  # its stubs err
        raise VerifyError(f"a volume is damaged ({err})") from err
    if not stream.eof or stream.unused_data or len(raw) < _HEADER:
        raise VerifyError("a volume is cut off, or followed by other data")
    try:
        header = nib.Nifti1Header(raw[:348])
        shape, dtype = header.get_data_shape(), header.get_data_dtype()
    except (HeaderDataError, ValueError, KeyError) as err:
        raise VerifyError(f"a volume is damaged ({err})") from err
    if dtype not in types or len(shape) != 3:
        raise VerifyError(f"a volume of {dtype} {shape} where {np.dtype(types[0])} is expected")
    if len(raw) != _HEADER + int(np.prod(shape)) * dtype.itemsize:
        raise VerifyError(f"a volume of {shape} has {len(raw) - _HEADER} bytes of voxels")
    voxels = np.frombuffer(raw, dtype, offset=_HEADER).reshape(shape, order="F")
    blank = Volume(np.broadcast_to(voxels.dtype.type(0), shape), affine)
    if raw[:_HEADER] != nifti_header(blank):
        raise VerifyError("a volume's header is not that of its shape, type and affine")
    return np.ascontiguousarray(voxels)

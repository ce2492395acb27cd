"""The header of a NIfTI file: checked as a whole before anything is made room for.

nibabel knows where the fields lie; what they may say is decided here, and stricter: it takes a
scan with two affines that differ, repairs what looks odd, and reads past what it cannot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synthct.errors import SourceError
from synthct.volume.content import Content
from synthct.volume.formats import START_BYTES, describe_format
from synthct.volume.grid import (
    GRID_TOLERANCE,
    Affine,
    Index3,
    corner_distance_mm,
    oriented_affine,
    spacing_of,
    voxel_distance,
)

#: Four times the voxels of the largest whole-body CT.
MAX_VOXELS = 2**30
#: 128 MiB of HU.
_MANY_VOXELS = 2**26
#: Greatest part of a file before its voxels.
_MAX_OFFSET = 2**26
#: Voxels of a patient's CT, with plenty to spare.
_SPACING_MM = (0.01, 100.0)
#: How far spacing and sform may differ (relative): both are float32, written by rounding programs.
_SPACING_TOLERANCE = 1e-3
_EPSILON = float(np.finfo(np.float32).eps)

_MAGIC = {348: b"n+1\0", 540: b"n+2\0\r\n\x1a\n"}


@dataclass(frozen=True, eq=False)
class Header:
    """What a NIfTI header says of the voxels that follow it.

    Attributes:
        shape: Shape (I, J, K) of the stored array, in Fortran order.
        frames: Number of such arrays, one after the other.
        dtype: Of the stored voxels.
        slope: What stored voxels are multiplied by.
        intercept: What is added to them then.
        affine: (4, 4) from stored voxel index to RAS+ mm.
        has_form: Whether the file says how it lies; if not, the user did.
    """

    shape: Index3
    frames: int
    dtype: np.dtype[Any]
    slope: float
    intercept: float
    affine: Affine
    has_form: bool = True

    @property
    def num_bytes(self) -> int:
        """Of the stored voxels of all frames."""
        return math.prod(self.shape) * self.frames * self.dtype.itemsize

    @property
    def is_large(self) -> bool:
        """Whether its voxels are so many that making room for them in vain would hurt."""
        return math.prod(self.shape) * self.frames > _MANY_VOXELS

    @property
    def is_scaled(self) -> bool:
        """Whether stored voxels are not yet the values."""
        return (self.slope, self.intercept) != (1.0, 0.0)


def read_header(content: Content, *, orientation: str | None = None) -> Header:
    """Read and check the header, and everything else that comes before the voxels.

    Args:
        content: At its start.
        orientation: The patient directions in which i, j and k increase, such as ``LAS``, of a
            file that does not say how it lies (both form codes 0); None to refuse such a file.

    Raises:
        SourceError: If it is no NIfTI file, or one that cannot be a scan, or is damaged.
    """
    path = content.path
    fields = _fields(content)
    shape, frames = _shape(path, fields)
    dtype = _dtype(path, fields)
    slope, intercept = _scaling(path, fields)
    affine = _affine(path, fields, shape)
    has_form = affine is not None
    if affine is None:
        affine = _oriented(path, fields, shape, orientation)
    offset = _offset(path, fields)
    header = Header(shape, frames, dtype, slope, intercept, affine, has_form)
    content.require_size(offset + header.num_bytes)
    content.skip(offset - len(fields.binaryblock))
    return header


def _fields(content: Content) -> Any:
    """The bytes of the header by field, as they are; nothing is repaired."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    if content.file_size == 0:
        raise SourceError(f"{content.path}: the file is empty; fetch it again")
    try:
        start = content.peek(START_BYTES)
        little, big = (int.from_bytes(start[:4], order) for order in ("little", "big"))
        size = next((n for n in (little, big) if n in _MAGIC), None)
        if size is None:
            if len(start) < 348 and describe_format(start) is None:
                raise SourceError(f"{content.path}: not a NIfTI file, or cut in its header")
            hint = describe_format(start) or f"it begins with {start[:8]!r}; fetch it again"
            raise SourceError(f"{content.path}: not a NIfTI file; {hint}")
        block = content.read(size)
    except SourceError as err:
        if "cut short: " in str(err):
            raise SourceError(f"{content.path}: not a NIfTI file, or cut in its header") from err
        raise
    kind, endianness = (
        (Nifti1Header if size == 348 else Nifti2Header),
        "<" if little == size else ">",
    )
    fields = kind(block, endianness=endianness, check=False)
    magic = bytes(block[344:348] if size == 348 else block[4:12])
    if magic[:3] in (b"ni1", b"ni2"):
        raise SourceError(f"{content.path}: one half of a .hdr and .img pair; convert to .nii.gz")
    if size == 348 and not magic.strip(b"\0"):
        raise SourceError(
            f"{content.path}: not a NIfTI file but ANALYZE 7.5, which does not tell left from "
            "right; convert it to .nii.gz by a program that knows"
        )
    if magic != _MAGIC[size]:
        raise SourceError(f"{content.path}: not a NIfTI file (its magic is {magic!r})")
    return fields


def _shape(path: Path, fields: Any) -> tuple[Index3, int]:
    """The three axes, and the length of the fourth."""
    dim = [int(n) for n in fields["dim"]]
    if not 1 <= dim[0] <= 7:
        raise SourceError(f"{path}: dim[0] is {dim[0]}, no number of axes; repair the header")
    lengths = dim[1 : dim[0] + 1]
    if min(lengths) < 1:
        raise SourceError(f"{path}: its shape is {tuple(lengths)}; every axis needs a length")
    if len(lengths) < 3:
        raise SourceError(
            f"{path}: expected a 3D scan but its shape is {tuple(lengths)}; save a slice with a "
            "third axis of length 1"
        )
    i, j, k, *more = lengths
    frames = math.prod(more)
    if frames > 1 and frames != more[0]:
        raise SourceError(
            f"{path}: expected a 3D scan but its shape is {tuple(lengths)}; save one scan alone"
        )
    if i * j * k * frames > MAX_VOXELS:
        raise SourceError(
            f"{path}: its header claims {i} x {j} x {k} voxels in {frames} frames, "
            f"more than the {MAX_VOXELS} that are allowed"
        )
    return (i, j, k), frames


def _dtype(path: Path, fields: Any) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = fields.get_data_dtype()
    except KeyError as err:
        raise SourceError(f"{path}: datatype {int(fields['datatype'])} is unknown") from err
    if dtype.fields is not None or dtype.kind not in "iuf" or dtype.itemsize > 8:
        name = "RGB colours" if dtype.fields is not None else str(dtype)
        name = "single bits" if int(fields["datatype"]) == 1 else name
        raise SourceError(f"{path}: voxels of type {name} are not a CT or label map")
    if int(fields["bitpix"]) != 8 * dtype.itemsize:
        raise SourceError(
            f"{path}: datatype {dtype} has {8 * dtype.itemsize} bits but bitpix says "
            f"{int(fields['bitpix'])}; repair the header"
        )
    return dtype


def _scaling(path: Path, fields: Any) -> tuple[float, float]:
    """Slope and intercept, where nibabel and SimpleITK agree on them.

    A slope of 0 means "not scaled" by the standard, and programs write NaN for it too. With
    another intercept the one reader ignores it and the other does not.
    """
    slope, intercept = float(fields["scl_slope"]), float(fields["scl_inter"])
    if slope == 0 and intercept == 0:
        return 1.0, 0.0
    if math.isnan(slope) and (intercept == 0 or math.isnan(intercept)):
        return 1.0, 0.0
    if not (math.isfinite(slope) and math.isfinite(intercept)) or slope == 0:
        raise SourceError(
            f"{path}: scl_slope is {slope:g} and scl_inter {intercept:g}; repair the header"
        )
    return slope, intercept


def _offset(path: Path, fields: Any) -> int:
    """Where the voxels begin."""
    offset, least = float(fields["vox_offset"]), len(fields.binaryblock) + 4
    if not least <= offset <= _MAX_OFFSET or offset != int(offset):
        raise SourceError(
            f"{path}: vox_offset is {offset:g}, not a whole number from {least} to {_MAX_OFFSET}; "
            "repair the header"
        )
    return int(offset)


def _affine(path: Path, fields: Any, shape: Index3) -> Affine | None:
    """The sform, or the qform where there is no other; None if there is neither.

    Where there are both they must agree within ``GRID_TOLERANCE``, but for a shear, which a
    quaternion cannot hold.
    """
    spacing = _spacing_mm(path, fields)
    if fields["pixdim"][0] == 0:  # "if by chance it is 0, it is treated as 1" (nifti1.h)
        fields["pixdim"][0] = 1
    sform = _form(path, fields, "sform", ("srow_x", "srow_y", "srow_z"))
    places = [f"quatern_{axis}" for axis in "bcd"] + [f"qoffset_{axis}" for axis in "xyz"]
    qform = _form(path, fields, "qform", places)
    affine = qform if sform is None else sform
    if affine is None:
        return None
    if sform is not None and qform is not None:
        nearest = min(
            (_nearest_qform(fields, shape, form, qform) for form in _without_shear(sform)),
            key=lambda pair: voxel_distance(shape, *pair),
        )
        if voxel_distance(shape, *nearest) > GRID_TOLERANCE:
            distance = corner_distance_mm(shape, *nearest)
            raise SourceError(
                f"{path}: sform and qform place its corners {distance:.3f} mm apart; keep the one "
                f"that is right\nsform\n{sform}\nqform\n{qform}"
            )
    if not np.allclose(spacing_of(affine), spacing, rtol=_SPACING_TOLERANCE, atol=0):
        raise SourceError(
            f"{path}: voxels are {_triple(spacing)} mm by pixdim but "
            f"{_triple(spacing_of(affine))} mm by the sform; repair the header\nsform\n{affine}"
        )
    return affine


def _oriented(path: Path, fields: Any, shape: Index3, orientation: str | None) -> Affine:
    """The affine of a file whose orientation the user says.

    Raises:
        SourceError: If the user does not.
    """
    if orientation is None:
        raise SourceError(
            f"{path}: neither sform nor qform says how it lies in the patient (both codes are 0), "
            "so left and right are unknown; repair the header, or say with 'orientation: LAS' "
            "(or RAS, LPS, ...) in the source in which directions its axes run; a label map that "
            "lies as its image does can take its grid by 'label_grid: image'"
        )
    return oriented_affine(shape, _spacing_mm(path, fields), orientation)


def _spacing_mm(path: Path, fields: Any) -> list[float]:
    """The size of a voxel by pixdim."""
    unit = int(fields["xyzt_units"]) % 8
    if unit not in (0, 2):
        name = {1: "metres", 3: "micrometres"}.get(unit, "a unit that NIfTI does not know")
        raise SourceError(
            f"{path}: its lengths are not in mm but in {name} (xyzt_units {unit}); convert affine "
            "and spacing to mm"
        )
    spacing = [float(mm) for mm in fields["pixdim"][1:4]]
    least, most = _SPACING_MM
    if not all(least <= mm <= most for mm in spacing):
        raise SourceError(
            f"{path}: voxels of {_triple(spacing)} mm (pixdim) are not of a CT; {least:g} to "
            f"{most:g} are allowed; repair the header (metres are no mm)"
        )
    return spacing


def _form(path: Path, fields: Any, name: str, places: Sequence[str]) -> Affine | None:
    """One of the two affines of a header, which can be inverted; None if it is not there."""
    from nibabel.spatialimages import HeaderDataError

    if not fields[f"{name}_code"] > 0:
        return None
    stored = np.concatenate([np.atleast_1d(fields[place]) for place in places])
    if not np.isfinite(stored).all():
        raise SourceError(f"{path}: its {name} has no inverse: it holds {stored}")
    try:
        affine = np.asarray(getattr(fields, f"get_{name}")(), dtype=np.float64)
    except (HeaderDataError, ValueError) as err:
        raise SourceError(f"{path}: its {name} is no rotation ({err}); repair the header") from err
    unit = affine[:3, :3] / np.maximum(np.linalg.norm(affine[:3, :3], axis=0), 1e-12)
    if abs(np.linalg.det(unit)) < 1e-3:
        raise SourceError(
            f"{path}: its affine ({name}) has no inverse; repair the header\n{affine}"
        )
    return affine


def _without_shear(sform: Affine) -> list[Affine]:
    """An sform, and what programs write of it as a quaternion if it is sheared.

    Either the nearest rotation (nifti1_io, nibabel, dcm2niix) or the directions of rows and
    columns with their normal.
    """
    steps = np.array(spacing_of(sform))
    unit = sform[:3, :3] / steps
    u, _, vt = np.linalg.svd(unit)
    normal = np.cross(unit[:, 0], unit[:, 1])
    normal *= np.sign(normal @ unit[:, 2]) / max(float(np.linalg.norm(normal)), 1e-12)
    forms = [sform]
    for axes in (u @ vt, np.column_stack([unit[:, 0], unit[:, 1], normal])):
        forms.append(sform.copy())
        forms[-1][:3, :3] = axes * steps
    return forms


def _nearest_qform(
    fields: Any, shape: Index3, form: Affine, qform: Affine
) -> tuple[Affine, Affine]:
    """``form``, and of all qforms that round to the stored one the nearest to it.

    Of the quaternion (a, b, c, d) only b, c and d are stored, as float32, and a follows from
    a² = 1 - b² - c² - d², which says little of an a near 0.
    """
    from nibabel.quaternions import mat2quat, quat2mat

    bcd = [float(fields[f"quatern_{name}"]) for name in "bcd"]
    a2 = 1 - sum(x * x for x in bcd)
    least, most = (math.sqrt(max(0.0, a2 + error)) for error in (-3 * _EPSILON, 3 * _EPSILON))
    steps = np.diag(spacing_of(qform)) * [1, 1, -1 if np.linalg.det(qform[:3, :3]) < 0 else 1]
    a = min(max(abs(mat2quat(form[:3, :3] @ np.linalg.inv(steps))[0]), least), most)
    pairs = []
    for sign in (1, -1):
        near = qform.copy()
        near[:3, :3] = quat2mat([sign * a, *bcd]) @ steps
        pairs.append((form, near))
    return min(pairs, key=lambda pair: voxel_distance(shape, *pair))


def _triple(lengths: Any) -> str:
    return " x ".join(f"{mm:g}" for mm in lengths)

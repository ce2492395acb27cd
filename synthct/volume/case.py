"""Case: one CT with its label map, and where both came from."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from synthct.errors import MaskError
from synthct.volume import Volume

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Case:
    """One scan of one patient, canonical (RAS+) and on one grid.

    Attributes:
        case_id: Name of the case, unique within its source.
        patient_id: The person; splits go by this.
        source: Name of the source in the recipe, such as ``hosts``.
        ct: int16 HU, or None for a donor that has only a label map.
        labels: Label map on the grid of ``ct``.
        label_names: Name of a structure to its value in ``labels``.
        unions: Name of a union to the names of its parts, such as kidney to left and right.
    """

    case_id: str
    patient_id: str
    source: str
    ct: Volume | None
    labels: Volume
    label_names: Mapping[str, int]
    unions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    _known: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    def once(self, key: Hashable, find: Callable[[], T]) -> T:
        """What ``find`` returns, found once and kept as long as the case is.

        Args:
            key: Names what is found; the same key always means the same.
            find: Looks at nothing but this case.
        """
        if key not in self._known:
            self._known[key] = find()
        return cast(T, self._known[key])

    def values_of(self, label: str) -> tuple[int, ...]:
        """The label-map values that make up ``label``, a structure or a union.

        Raises:
            MaskError: If the case knows no such label.
        """
        if label in self.label_names:
            return (self.label_names[label],)
        parts = [self.label_names[p] for p in self.unions.get(label, ()) if p in self.label_names]
        if not parts:
            known = ", ".join(sorted({*self.label_names, *self.unions})) or "none"
            raise MaskError(
                f"case {self.case_id}: label '{label}' is not in the label map (has: {known}); "
                "choose another label or source"
            )
        return tuple(parts)

    def region(self, label: str) -> npt.NDArray[np.bool_]:
        """Boolean (I, J, K): where ``label``, a structure or a union, lies.

        Raises:
            MaskError: If the case knows no such label.
        """
        values = self.values_of(label)
        array = self.labels.array
        region: npt.NDArray[np.bool_] = array == values[0]
        for value in values[1:]:  # indexing a table by the array would take 8 bytes a voxel
            region |= array == value
        return region

    def scan(self) -> Volume:
        """The CT.

        Raises:
            MaskError: If the case has only a label map.
        """
        if self.ct is None:
            raise MaskError(f"case {self.case_id} has no image; it can only be a donor of shapes")
        return self.ct

"""nnU-Net as a study's segmenter, in a Python environment of its own.

Whole scans are given to it as a raw dataset; ``nnunet_script.py`` plans, trains and predicts there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.errors import ResourceError
from synthct.sources import CaseEntry
from synthct.studies.downstream.recipe import Study
from synthct.volume import Volume, nifti_bytes
from synthct.volume.views import IGNORE

_SCRIPT = Path(__file__).with_name("nnunet_script.py")
_DATASET = "Dataset501_Study"
#: Iterations of an epoch, as nnU-Net has them.
_ITERATIONS = 250
#: Last lines of its output that are told with an error.
_LINES = 15


@dataclass(frozen=True)
class Files:
    """A training scan in two files.

    Attributes:
        name: Of the case.
        is_real: Whether nothing in it was painted.
        folder: Where they lie.
        has_unknown: Whether some voxels are of unknown content.
    """

    name: str
    is_real: bool
    folder: Path
    has_unknown: bool


class NnUnet:
    """nnU-Net v2, trained for the study's number of steps.

    Args:
        study: The study.
        python: The interpreter of an environment with nnunetv2.
        configuration: ``2d`` or ``3d_fullres``.
        device: ``cpu``, ``cuda`` or ``mps``.
    """

    modules = (__name__, f"{__name__}_script")

    def __init__(self, study: Study, python: Path, configuration: str, device: str) -> None:
        self._names, self._steps = study.classes, study.trainer.steps
        self._python, self._configuration, self._device = python, configuration, device

    @property
    def facts(self) -> dict[str, Any]:
        """As in ``SegmenterKind``."""
        return {"network": "nnunet", "configuration": self._configuration, "steps": self._steps}

    def keep(
        self,
        folder: Path,
        name: str,
        hu: npt.NDArray[np.int16],
        classes: npt.NDArray[np.uint8],
        entry: CaseEntry,
        *,
        is_real: bool,
    ) -> Files:
        """As in ``SegmenterKind``; canonical scans, and labels with ``ignore`` as the last."""
        plain = name.replace(".", "_")
        unknown = classes == IGNORE
        values = np.where(unknown, len(self._names) + 1, classes).astype(np.uint8)
        _write(folder / f"{plain}_0000.nii.gz", Volume(hu, entry.affine))
        _write(folder / f"{plain}.nii.gz", Volume(values, entry.affine))
        return Files(plain, is_real, folder, bool(unknown.any()))

    def probabilities(
        self,
        kept: Sequence[Files],
        seed: int,
        test: Callable[[], Iterator[tuple[CaseEntry, npt.NDArray[np.int16]]]],
        folder: Path,
        on_step: Callable[[], object],
    ) -> Iterator[npt.NDArray[np.float32]]:
        """As in ``SegmenterKind``."""
        work = folder / "nnunet"
        shutil.rmtree(work, ignore_errors=True)
        raw = work / "raw" / _DATASET
        for place in ("imagesTr", "labelsTr", "imagesTs"):
            (raw / place).mkdir(parents=True)
        for one in kept:
            for place, file in (("imagesTr", f"{one.name}_0000"), ("labelsTr", one.name)):
                os.link(one.folder / f"{file}.nii.gz", raw / place / f"{file}.nii.gz")
        labels = {"background": 0, **{name: n for n, name in enumerate(self._names, 1)}}
        if any(one.has_unknown for one in kept):
            labels["ignore"] = len(labels)
        description = {
            "channel_names": {"0": "CT"},
            "labels": labels,
            "numTraining": len(kept),
            "file_ending": ".nii.gz",
        }
        (raw / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
        number = 0
        for number, (entry, hu) in enumerate(test(), 1):
            _write(raw / "imagesTs" / f"{number:05d}_0000.nii.gz", Volume(hu, entry.affine))
        iterations = min(_ITERATIONS, self._steps)
        settings = {
            "dataset": 501,
            "configuration": self._configuration,
            "iterations": iterations,
            "epochs": -(-self._steps // iterations),
            "seed": seed,
            "device": self._device,
            "images": str(raw / "imagesTs"),
            "predictions": str(work / "predictions"),
        }
        (work / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
        self._run(work, iterations, on_step)
        for scan in range(1, number + 1):
            # SimpleITK's arrays run k, j, i
            found = np.load(work / "predictions" / f"{scan:05d}.npy")
            yield np.ascontiguousarray(found.transpose(0, 3, 2, 1), np.float32)
        shutil.rmtree(work, ignore_errors=True)

    def _run(self, work: Path, iterations: int, on_step: Callable[[], object]) -> None:
        """Run the script; it says a line ``epoch`` after each epoch.

        Raises:
            ResourceError: If it fails.
        """
        places: Mapping[str, str] = {
            f"nnUNet_{name}": str(work / name) for name in ("raw", "preprocessed", "results")
        }
        few = {"nnUNet_n_proc_DA": "1", "nnUNet_compile": "f", "nnUNet_def_n_proc": "1"}
        last: deque[str] = deque(maxlen=_LINES)
        try:
            process = subprocess.Popen(  # noqa: S603
                # -I: or modules beside the script would hide those of its own environment
                [str(self._python), "-I", str(_SCRIPT), str(work / "settings.json")],
                env={**os.environ, **places, **few}, text=True, encoding="utf-8",
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
        except OSError as err:
            raise ResourceError(f"--python {self._python}: {err.strerror}; correct it") from err
        with process:
            assert process.stdout is not None, "a pipe"
            try:
                for line in process.stdout:
                    last.append(line.rstrip())
                    if line.startswith("epoch done"):
                        for _ in range(iterations):
                            on_step()
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            told = "\n".join(f"  {line}" for line in last)
            raise ResourceError(
                f"nnU-Net ended with {process.returncode} under {self._python}; is nnunetv2 "
                f"installed there?\n{told}"
            )


def _write(path: Path, volume: Volume) -> None:
    path.write_bytes(nifti_bytes(volume, compress=True))

"""Fixtures for all tests: a small case with known truth, and the real CT where it is at hand."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hub import loopback
from hub.server import HubServer
from hypothesis import HealthCheck, settings

from synthct.volume import Affine, Array, Index3, Volume, restore_orientation, write_volume
from synthct.volume.case import Case

if TYPE_CHECKING:
    from synthct.models.denoiser import DiffusionInpaintPipeline
    from synthct.models.painting import Inpainter

# The only Hub of all tests is one on loopback; also for the conftest.py of a folder, which is
# imported before pytest is configured.
loopback.announce()

# Here and in every process that tests start: networks this small only wait on a second thread, and
# the number of threads changes low bits.
os.environ["OMP_NUM_THREADS"] = "1"

# Here and in those processes, compiled files are kept, whatever the environment says: making the
# assertions of all tests speak takes every worker a dozen seconds, and each process that is started
# would compile the package.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

#: HU and label values of ``tiny_case``.
AIR_HU, BODY_HU, KIDNEY_HU, TUMOR_HU = -1000, 40, 180, 90
TINY_LABELS = {"kidney": 1, "tumor": 2}

#: What ``tiny_checkpoint`` can paint, in the order of its config.
TINY_PAINTS = ("kidney", "tumor", "lung")

#: The smallest network of the kind that is trained: a training recipe's ``model``.
TINY_NETWORK = {
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "attention_head_dim": 8,
    "norm_num_groups": 8,
    "dropout": 0.0,
    "fold": 2,
    "spacing_range_mm": [0.5, 3.1],
}

#: KiTS stores slices first, and runs to inferior, posterior, left.
KITS_AXES = np.array([[0.0, 0, -1, 0], [0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1]])


def pytest_configure() -> None:
    """Examples of properties are always the same."""
    settings.register_profile(
        "synthct",
        derandomize=True,
        database=None,
        deadline=None,
        print_blob=False,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    settings.load_profile("synthct")


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    loopback.forget()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """An empty Hub, and the token of a user who may write to it."""
    server = loopback.HUB.start()
    server.reset()
    server.store.users[loopback.TOKEN] = (loopback.OWNER, "write")
    monkeypatch.setenv("HF_TOKEN", loopback.TOKEN)
    yield server
    server.reset()


@pytest.fixture(scope="session", autouse=True)
def commands_are_built_once() -> Iterator[None]:
    """Typer makes the tree of commands from their signatures: 50 ms, for each call of a test."""
    import typer.testing

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.testing, "_get_command", cache(typer.main.get_command))
        yield


@pytest.fixture(scope="session")
def versions(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> dict[str, Path]:
    """Versions of a small dataset; see ``published.build_versions``. Do not change them."""
    from published import build_versions

    return build_versions(tmp_path_factory.mktemp("versions"), tiny_checkpoint)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked ``realdata`` where the real CT is missing."""
    if SHARED_DATA.is_dir():
        return
    skip = pytest.mark.skip(reason="the real CT of ../shared/data is not here")
    for item in items:
        if item.get_closest_marker("realdata"):
            item.add_marker(skip)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """One numerics class wherever the tests run: the number of threads changes low bits."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real CT, ``../shared/data``; for tests marked ``realdata``."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real CT of ../shared/data is not here")
    return SHARED_DATA


def oblique_affine(spacing_mm: tuple[float, float, float] = (0.8, 0.8, 2.5)) -> Affine:
    """An affine that is anisotropic, rotated by 12 and 7 degrees, and still closest to RAS+."""
    a, b = np.deg2rad([12.0, 7.0])
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag(spacing_mm)
    affine[:3, 3] = (-31.5, 12.25, -840.0)
    return affine


def ellipsoid(
    shape: Index3,
    spacing_mm: tuple[float, float, float],
    center_mm: tuple[float, float, float],
    radii_mm: tuple[float, float, float],
) -> Array:
    """Boolean (I, J, K): an ellipsoid, its centre measured along the axes from voxel (0, 0, 0)."""
    axes = np.ogrid[tuple(slice(n) for n in shape)]
    parts = zip(axes, spacing_mm, center_mm, radii_mm, strict=True)
    x, y, z = (((at * s - c) / r) ** 2 for at, s, c, r in parts)
    return x + y + z <= 1


def make_tiny_case(case_id: str = "tiny", *, noise_seed: int = 0) -> Case:
    """A 48x40x24 CT (0.8, 0.8, 2.5 mm, oblique): body, one kidney, a tumour at its edge.

    Args:
        case_id: Name of the case and of its patient.
        noise_seed: Seed of the 5 HU of white noise, so that several cases differ.
    """
    shape, spacing = (48, 40, 24), (0.8, 0.8, 2.5)
    body = ellipsoid(shape, spacing, (19.0, 16.0, 30.0), (18.0, 14.5, 60.0))
    kidney = ellipsoid(shape, spacing, (22.0, 17.0, 30.0), (9.0, 7.0, 18.0))
    tumor = ellipsoid(shape, spacing, (28.0, 18.0, 32.0), (3.5, 3.0, 6.0))
    hu = np.full(shape, AIR_HU, dtype=np.float64)
    labels = np.zeros(shape, dtype=np.uint8)
    hu[body], hu[kidney], hu[tumor] = BODY_HU, KIDNEY_HU, TUMOR_HU
    labels[kidney], labels[tumor] = TINY_LABELS["kidney"], TINY_LABELS["tumor"]
    hu += np.random.default_rng(noise_seed).normal(0, 5, shape)
    affine = oblique_affine(spacing)
    return Case(
        case_id=case_id,
        patient_id=case_id,
        source="hosts",
        ct=Volume(np.rint(hu).clip(-1024, 3071).astype(np.int16), affine),
        labels=Volume(labels, affine),
        label_names=TINY_LABELS,
    )


def pipeline_of(inpainter: Inpainter) -> DiffusionInpaintPipeline:
    """The pipeline of diffusers that paints."""
    from synthct.models.networks.denoising import Denoising

    assert isinstance(inpainter.network, Denoising)
    return inpainter.network.pipeline


def write_tiny_checkpoint(folder: Path, *, seed: int = 0) -> Path:
    """A checkpoint of 44,000 random numbers, written as training writes it.

    It paints kidney and tumor (soft-tissue window), lung (lung window) and whatever fits (full
    range) in patches of 32 and 64 pixels of 0.5 to 3.1 mm. Its paint is noise, but it depends on
    everything a trained network depends on.

    Args:
        folder: Where to write.
        seed: Of the weights.
    """
    import torch
    from diffusers import DDPMScheduler

    from synthct.models.palette import PaletteInpaintPipeline
    from synthct.training.denoising import build_unet
    from synthct.training.recipe import TrainingRecipe
    from synthct.training.release import TrainingSummary, write_checkpoint

    codecs = {
        "default": "full_range",
        "kidney": "soft_tissue",
        "tumor": "soft_tissue",
        "lung": "lung",
    }
    model = {**TINY_NETWORK, "patch_sizes": [32, 64], "codecs": codecs}
    recipe = TrainingRecipe.model_validate(
        {
            "name": "tiny",
            "sources": {"hosts": {"layout": "phantom", "patients": 1}},
            "masks": [{"kind": "organ", "name": n, "label": n} for n in TINY_PAINTS],
            "model": model,
        }
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = build_unet(recipe)
        # A fresh network ignores the label; this one must not.
        torch.nn.init.normal_(unet.label_embedding.weight)
    noise = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    write_checkpoint(PaletteInpaintPipeline(unet, noise), folder, recipe, TrainingSummary(steps=0))
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random checkpoint; see ``write_tiny_checkpoint``. Do not change it."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture
def tiny_case() -> Case:
    """One case of known truth; see ``make_tiny_case``."""
    return make_tiny_case()


def write_kits(root: Path, case: Case, *, image: bool = True) -> Path:
    """A case in KiTS's files and axis order; without its image, a person of its own.

    All tiny cases have one label map, so such a case lacks one voxel of it, told by its number.
    """
    folder = root / case.case_id
    folder.mkdir(parents=True)
    labels = case.labels.array.copy()
    if not image:
        labels[tuple(np.argwhere(labels)[int(case.case_id[-2:])])] = 0
    labels_ras = Volume(labels, case.labels.affine)
    write_volume(restore_orientation(labels_ras, KITS_AXES), folder / "segmentation.nii.gz")
    if image:
        write_volume(restore_orientation(case.scan(), KITS_AXES), folder / "imaging.nii.gz")
    return folder


def write_structures(root: Path, case: Case, structures: dict[str, np.ndarray]) -> Path:
    """A case in TotalSegmentator's files, stored LPS."""
    folder = root / case.case_id
    (folder / "segmentations").mkdir(parents=True)
    lps = np.diag([-1.0, -1, 1, 1])
    write_volume(restore_orientation(case.scan(), lps), folder / "ct.nii.gz")
    for name, region in structures.items():
        volume = restore_orientation(Volume(region.astype(np.uint8), case.labels.affine), lps)
        path = folder / (name if "/" in name else f"segmentations/{name}")
        path.parent.mkdir(exist_ok=True)
        write_volume(volume, path.with_name(f"{path.name}.nii.gz"))
    return folder


def halves(region: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The left (lower i) and right part of a region."""
    i = np.arange(region.shape[0])[:, None, None]
    middle = int(np.argwhere(region)[:, 0].mean())
    return region & (i < middle), region & (i >= middle)


@pytest.fixture(scope="session")
def kits_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``kits_root`` is a copy of."""
    root = tmp_path_factory.mktemp("kits") / "dataset"
    write_kits(root, make_tiny_case("case_00000"))
    write_kits(root, make_tiny_case("case_00001", noise_seed=1))
    write_kits(root, make_tiny_case("case_00002"), image=False)
    return root


@pytest.fixture
def kits_root(tmp_path: Path, kits_template: Path) -> Path:
    """A KiTS folder of three cases; the last has no image."""
    return Path(shutil.copytree(kits_template, tmp_path / "dataset"))


@pytest.fixture(scope="session")
def organs_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``organs_root`` is a copy of."""
    case = make_tiny_case("s0001")
    kidney = case.region("kidney")
    left, right = halves(kidney)
    root = tmp_path_factory.mktemp("totalsegmentator") / "organs"
    write_structures(
        root,
        case,
        {
            "kidney_left": left,
            "kidney_right": right,
            "liver": case.region("tumor"),
            "spleen": np.zeros_like(kidney),
            "lung": kidney,
            "lung_upper_lobe_left": left,
            "lung_lower_lobe_right": right,
            "segmentations_extra/lung_nodule": case.region("tumor"),
        },
    )
    bare = write_structures(root, make_tiny_case("s0002", noise_seed=1), {})
    (bare / "segmentations").rmdir()
    (root / "meta.csv").write_text("image_id;age;gender;split\ns0001;50;f;train\ns0002;;;val\n")
    return root


@pytest.fixture
def organs_root(tmp_path: Path, organs_template: Path) -> Path:
    """A TotalSegmentator folder of two cases; the last has no structures."""
    return Path(shutil.copytree(organs_template, tmp_path / "organs"))

"""Small examples of every kind of file that is kept between runs, made and read by the real code.

The scans are blocks of noise; all that finds, keeps, checks and reads is what every run uses.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.training_utils import EMAModel

from synthct.build.limits import RealPairs
from synthct.build.references import learn_references
from synthct.dataset.sample import Sample
from synthct.evaluate.collect import FeatureJob, collect
from synthct.evaluate.pictures import Crop, Extracted
from synthct.evaluate.stream import Dataset
from synthct.metrics.table import MEASURES
from synthct.models.checkpoint import find_checkpoint, load_checkpoint
from synthct.models.training_index import make_index, read_index
from synthct.sources import Index, Kits, PhantomSource, dicom_files, index_sources
from synthct.sources.scanner import write_case
from synthct.sources.stored import sha256_of
from synthct.storage.files import make_folder
from synthct.storage.hub import is_here, note_files
from synthct.studies.selftest.stand_in import StandIn, stand_in_facts
from synthct.training.cache import open_training_set
from synthct.training.checkpoint import Progress, TrainState, latest_state, load_state, save_state
from synthct.training.objectives.palette import PaletteObjective
from synthct.training.recipe import TrainingRecipe
from synthct.training.release import TrainingSummary, write_checkpoint
from synthct.volume import Array, Volume

_LABELS = {"kidney": 1, "tumor": 2, "cyst": 3}
_NETWORK = {
    "block_out_channels": [8], "layers_per_block": 1, "attention_head_dim": 8,
    "norm_num_groups": 8, "patch_sizes": [32],
}  # fmt: skip


@dataclass(frozen=True)
class KeptFiles:
    """One kind of kept files.

    Attributes:
        name: What they are, in the plural.
        folder: Holds all of them, and nothing else.
        use: Has their content read, or made where there is none; a digest of it.
        victims: Pattern of the files to damage, below ``folder``.
        refuses: Whether damage is refused, with the content before taken, instead of mended.
    """

    name: str
    folder: Path
    use: Callable[[], str]
    victims: str = "*"
    refuses: bool = False


def every_kind(folder: Path) -> tuple[KeptFiles, ...]:
    """All kinds of kept files, each with its files made.

    Args:
        folder: A new folder on the disk to test.

    Raises:
        ResourceError: If it cannot be written.
    """
    cache = folder / "cache"
    sources = {name: _write_scans(folder / name, seed) for seed, name in enumerate(("one", "two"))}

    def index() -> Index:
        lesions = {name: [("tumor", "kidney")] for name in sources}
        return index_sources(sources, ["kidney"], lesions=lesions, cache_dir=cache)

    whole = index()

    def references() -> str:
        learnt = learn_references(whole, ["kidney"], _LABELS, "axial", cache_dir=cache)
        tissue = learnt._tissue["kidney"]  # to train its segmenter each time would take a second
        return _digest(*(a for t in tissue for a in (t.quantiles, t.features, t.inside)))

    def limits() -> str:
        hosts = [entry for cases in whole.sources.values() for entry in cases]
        return _digest(*RealPairs(hosts, _LABELS, "axial", cache).of(None, None))

    kinds = (
        KeptFiles("facts of files and lesions", cache / "index", lambda: _index_digest(index())),
        KeptFiles("tissue references", cache / "tissue", references),
        KeptFiles("default limits", cache / "limits", limits),
        KeptFiles("training patches", cache / "patches", _patches(sources["one"], whole, cache)),
        _states(folder / "run"),
        KeptFiles("evaluation features", cache / "features", lambda: _features(cache)),
        KeptFiles("phantoms", cache / "phantoms", lambda: _phantoms(cache)),
        _unfinished_build(folder / "build"),
        _download(cache / "hub"),
        _checkpoint(folder / "trained"),
        *((_dicom_headers(folder / "dicom"),) if importlib.util.find_spec("pydicom") else ()),
    )
    for kind in kinds:
        kind.use()
    return kinds


def _write_scans(root: Path, seed: int) -> Kits:
    """Two patients with a kidney and a tumour, in files as KiTS has them."""
    for number in range(2):
        labels = np.zeros((32, 32, 8), np.uint8)
        labels[6:26, 6:26, 1:7] = 1
        labels[12:18, 12:18, 2:6] = 2
        noise = np.random.default_rng([seed, number]).normal(0, 8, labels.shape)
        hu = (np.array([-900, 40, 180])[labels] + noise).astype(np.int16)
        affine = np.diag([1.0, 1.0, 2.0, 1.0])
        files: dict[str, Array] = {"imaging.nii.gz": hu, "segmentation.nii.gz": labels}
        write_case(
            root / f"case_{2 * seed + number:05d}",
            {name: Volume(array, affine) for name, array in files.items()},
        )
    return Kits(layout="kits23", root=root)


def _index_digest(index: Index) -> str:
    entries = [entry for name in index.sources for entry in index.entries(name)]
    facts = [
        (e.case_id, e.shape, e.affine.tolist(), e.labels, e.voxel_sha256, e.label_sha256, e.lesions)
        for e in entries
    ]
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _patches(source: Kits, index: Index, cache: Path) -> Callable[[], str]:
    """Two training sets, of recipes with two seeds."""
    recipes = [_recipe(source, seed) for seed in (0, 1)]
    rules = PaletteObjective(recipes[0]).rules
    one = Index({"scans": index.entries("one")})

    def use() -> str:
        digests = []
        for recipe in recipes:
            data = open_training_set(recipe, one, rules, cache_dir=cache, workers=0)
            patches = [data.patches.patch(row) for row in range(len(data.patches))]
            arrays = [array for patch in patches for array in (patch.image, patch.mask)]
            digests.append(_digest(*arrays, *(item.plane.array for item in data.slices)))
        return " ".join(digests)

    return use


def _recipe(source: Kits, seed: int) -> TrainingRecipe:
    return TrainingRecipe.model_validate(
        {
            "name": "selftest",
            "seed": seed,
            "sources": {"scans": source.model_dump(mode="json")},
            "masks": [{"name": "kidneys", "kind": "organ", "label": "kidney"}],
            "model": _NETWORK,
            "data": {"patches": 2, "patches_per_mask": 1},
            "validation": None,
        }
    )


def _states(output: Path) -> KeptFiles:
    """Two training states of one run; the newer one is damaged."""
    recipe = _recipe(Kits(layout="kits23", root=output), 0)

    def parts(seed: int) -> TrainState:
        torch.manual_seed(seed)
        made = PaletteObjective(recipe)
        means = {n: EMAModel(one.parameters(), decay=0.9) for n, one in made.networks.items()}
        for network in made.networks.values():
            for parameter in network.parameters():
                parameter.grad = torch.randn_like(parameter)
        for optimizer in made.optimizers.values():
            optimizer.step()
        return TrainState(made.networks, means, made.optimizers)

    for step in (1, 2):
        save_state(output, Progress(step), parts(step))
    fresh = parts(0)

    def use() -> str:
        state = latest_state(output)
        assert state is not None
        progress = load_state(state, fresh)
        tensors = [p for network in fresh.networks.values() for p in network.parameters()]
        tensors += [p for ema in fresh.ema.values() for p in ema.shadow_params]
        for optimizer in fresh.optimizers.values():
            moments = optimizer.state_dict()["state"].values()
            tensors += [tensor for one in moments for tensor in one.values()]
        return f"{progress.step} {_digest(*(tensor.detach().numpy() for tensor in tensors))}"

    return KeptFiles("training states", output, use, "step-00000002/*", refuses=True)


def _unfinished_build(output: Path) -> KeptFiles:
    """A build that was interrupted in its third shard, and is resumed in a copy."""
    stand_in, scratch = StandIn(), output.with_name("finished")
    with contextlib.suppress(KeyboardInterrupt):
        stand_in.build(output / "1.0.0", 0, [], samples=5)

    def use() -> str:
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.copytree(output, scratch)
        stand_in.build(scratch / "1.0.0", 0, [])
        return _files_digest(scratch / "1.0.0")

    return KeptFiles("unfinished builds", output, use)


def _download(cache: Path) -> KeptFiles:
    """Two files of a repository; a folder stands for the Hub."""
    names = ("case_00000/imaging.nii.gz", "meta.csv")
    folder = cache / "selftest--scans" / ("0" * 40) / "files"

    def use() -> str:
        if not is_here(folder):
            for number, name in enumerate(names):
                make_folder((folder / name).parent)
                (folder / name).write_bytes(np.random.default_rng(number).bytes(3000))
            note_files(folder, names)
        return " ".join(sha256_of(folder / name) for name in names)

    return KeptFiles("files of the Hub", cache, use)


def _checkpoint(output: Path) -> KeptFiles:
    """A checkpoint that a training has written; damage to it is refused."""
    recipe = _recipe(Kits(layout="kits23", root=output), 0)
    torch.manual_seed(0)
    regions = make_index((), None, 0)
    summary = TrainingSummary(steps=1, regions=regions)
    folder = output / "checkpoint"
    write_checkpoint(PaletteObjective(recipe).pipeline(), folder, recipe, summary)
    (folder / "README.md").unlink()  # for people, who may edit it

    def use() -> str:
        files = find_checkpoint(str(folder))
        read_index(files)
        load_checkpoint(files)
        return f"{files.checkpoint_id} {files.training}"

    return KeptFiles("checkpoints", output, use)


def _dicom_headers(root: Path) -> KeptFiles:
    """What is known of the DICOM files of a folder, which a program of its own reads again."""
    from pydicom import Dataset, FileMetaDataset
    from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

    make_folder(root)
    for number in ("1", "2"):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = UID(f"1.2.{number}")
        data.Modality, data.SeriesInstanceUID, data.PatientID = "CT", "1.2", "selftest"
        data.save_as(root / f"{number}.dcm", enforce_file_format=True)
    cache = root.with_name("dicom-cache")

    def use() -> str:
        dicom_files._known.clear()  # as in a process of its own
        found = dicom_files.dicom_files(root, cache, recursive=True, check=lambda path: path)
        return repr(sorted(found.kinds.items()))

    return KeptFiles("DICOM headers", cache, use)


class _Rows(Dataset):
    """A dataset of three small slices that lies nowhere."""

    def __init__(self) -> None:
        pass

    @property
    def content_id(self) -> str:
        return "selftest"

    def samples(self) -> Iterator[Sample]:
        mask = np.zeros((24, 24, 1), bool)
        mask[8:16, 8:16] = True
        for number in range(3):
            noise = np.random.default_rng(number).normal(40, 20, mask.shape).astype(np.int16)
            yield Sample(
                facts=stand_in_facts(f"sample-{number}"),
                affine=np.eye(4),
                original=None,
                image=noise,
                mask=mask,
                labels=mask.astype(np.uint8),
                metrics=dict.fromkeys(MEASURES),
            )


class _Means:
    """Mean and deviation as features."""

    name = key = "means"
    dim, sees_slices, sees_volumes = 2, True, False

    def extract(self, crops: Sequence[Crop]) -> Extracted:
        rows = [[crop.hu.mean(), crop.hu.std()] for crop in crops]
        return Extracted(np.array(rows, np.float32), None)


def _features(cache: Path) -> str:
    jobs = [FeatureJob("painted", _Means(), "mask"), FeatureJob("painted", _Means(), "slice")]
    nothing: Callable[..., None] = lambda *_: None  # noqa: E731
    sets = collect(_Rows(), jobs, scans=None, cache_dir=cache, advance=nothing, visit=nothing)
    return _digest(*(one.features for one in sets))


class _Blocks(PhantomSource):
    """Phantoms whose anatomy is a block, since a body takes seconds."""

    def scan(self, seed: int, patient: int) -> tuple[Volume, Volume]:
        labels = np.zeros((12, 12, 6), np.uint8)
        labels[3:9, 3:9, 2:4] = 1
        noise = np.random.default_rng([seed, patient]).normal(40, 10, labels.shape)
        return Volume(noise.astype(np.int16), np.eye(4)), Volume(labels, np.eye(4))


def _phantoms(cache: Path) -> str:
    source = _Blocks(patients=2)
    cases = source.find(cache).cases
    source.prepare(cases)
    paths = [path for case in cases for path in (case.image, case.label_files["liver"]) if path]
    return " ".join(sha256_of(path) for path in paths)


def _files_digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return " ".join(f"{path.relative_to(folder)} {sha256_of(path)}" for path in files)


def _digest(*arrays: Any) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()

"""``synthct table``: trains, builds and evaluates what a table's recipe names.

Everything is checked first. Run again with the same folder, it goes on: trainings from their last
state, datasets from their last shard, features from the cache.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from synthct.build.check import check
from synthct.build.run import build
from synthct.dataset.manifest import require_manifest
from synthct.errors import CheckpointError, RecipeError, counted
from synthct.evaluate.pictures import Extractor
from synthct.evaluate.results import Score, Spread
from synthct.evaluate.run import LEAST_MASKS, PAINTED, Options, evaluate
from synthct.models.checkpoint import find_checkpoint
from synthct.models.network import CheckpointFiles
from synthct.models.painting import Inpainter
from synthct.recipe.recipe import Recipe
from synthct.sources import FolderSection, Index, Source, download, index_sources
from synthct.storage.cache import read_kept, write_kept
from synthct.storage.files import make_folder
from synthct.studies.table.recipe import Table, slug
from synthct.studies.table.results import ALWAYS, Cost, TableResults
from synthct.training.check import check_training
from synthct.training.checkpoint import latest_state, step_of
from synthct.training.loop import train
from synthct.training.objectives import make_objective
from synthct.training.plan import hold_out
from synthct.training.release import TrainingSummary, write_checkpoint
from synthct.training.validate import as_checkpoint
from synthct.version import __version__

logger = logging.getLogger(__name__)

#: Fewer patients than this give no interval, as in ``evaluate``.
LEAST_PATIENTS = 5

#: Feature networks, the preferred first.
NETWORKS = ("inception-v3", "efficientnet-lite0")


@dataclass(frozen=True, eq=False)
class Place:
    """Where and how a table is made.

    Attributes:
        output: Folder of trainings, datasets and results.
        cache_dir: Where indexes, phantoms, patches and features are cached.
        device: Where networks run; by default a GPU if there is one.
        workers: Processes that prepare masks and patches.
        progress: Show progress bars.
    """

    output: Path
    cache_dir: Path
    device: str | None = None
    workers: int | None = None
    progress: bool = False

    def training(self, method: str) -> Path:
        """Folder of a method's training."""
        return self.output / "training" / slug(method)

    def datasets(self, row: str, method: str) -> Path:
        """Folder of a method's dataset of a row."""
        return self.output / "datasets" / slug(row) / slug(method)


def check_table(table: Table, place: Place) -> list[str]:
    """Check a table as far as possible without training or painting.

    Returns:
        What the reader should know: rows of few patients.

    Raises:
        SynthCTError: If a checkpoint is missing, a label is shown by no patient or painted by no
            checkpoint, a row has too few masks, or sources, masks or a training do not fit.
    """
    notes: list[str] = []
    recipe = table.recipe
    for row in recipe.rows:
        for one in (table.masks_only(row), table.real(row)):
            if one is not None:
                notes += _check_masks(table, row, one, place)
        for method in recipe.columns(row):
            if method in table.trainings:
                unknown = set(recipe.painted_labels(row)) - set(table.trainings[method].labels)
                if unknown:
                    raise table.error(
                        f"methods.{method}",
                        f"its training recipe has no '{min(unknown)}', which row '{row}' paints",
                    )
            else:
                checked = check(table.dataset(row, method), cache_dir=place.cache_dir)
                notes += _known(method, checked.index, checked.trained_on or frozenset())
    for method, training in table.trainings.items():
        _check_settings(table, method, place)
        refused = check_training(training, cache_dir=place.cache_dir)["refused"]
        if refused:
            raise table.error(f"methods.{method}", f"cannot be trained: {'; '.join(refused)}")
        index = _index(training.sources, training.all_labels(), place)
        cases = hold_out(training, index)[0].cases
        hashes = (one for case in cases for one in (case.voxel_sha256, case.fingerprint))
        seen = frozenset(one for one in hashes if one is not None)
        notes += _known(method, _index(recipe.sources, (), place), seen)
    return list(dict.fromkeys(notes))


def _check_settings(table: Table, method: str, place: Place) -> None:
    """Check how a method is to paint, on a checkpoint of its network before it is trained.

    Raises:
        RecipeError: If it cannot paint so, such as in steps where the network takes none, or a row.
    """
    training = table.trainings[method]
    objective = make_objective(training)
    with TemporaryDirectory() as folder:
        untrained = Path(folder) / slug(method)
        write_checkpoint(
            objective.pipeline(), untrained, training, TrainingSummary(0, base=objective.base)
        )
        try:
            for row in table.recipe.rows:
                if method in table.recipe.columns(row):
                    checked = check(
                        table.dataset(row, method, untrained), cache_dir=place.cache_dir
                    )
                    painting = checked.recipe.inpaint.network
            assert painting is not None, "only networks are trained"
            Inpainter(as_checkpoint(objective, slug(method)), painting, training.labels)
        except (CheckpointError, RecipeError) as err:
            raise table.error(f"methods.{method}", str(err)) from err


def _index(sources: Mapping[str, Source], labels: Sequence[str], place: Place) -> Index:
    return index_sources(download(sources, place.cache_dir), labels, cache_dir=place.cache_dir)


def _known(method: str, index: Index, trained_on: frozenset[str]) -> Iterator[str]:
    """A note if a checkpoint is trained on scans that it is judged on."""
    hosts = index.entries("hosts")
    known = sum(not trained_on.isdisjoint({e.voxel_sha256, e.fingerprint}) for e in hosts)
    if known:
        yield (
            f"{method} is trained on {known} of the {len(hosts)} hosts, so its numbers are better "
            "than they would be on scans that it does not know"
        )


def _check_masks(table: Table, row: str, recipe: Recipe, place: Place) -> Iterator[str]:
    """Check the masks of a row; yields a note if its patients are few."""
    checked = check(recipe, cache_dir=place.cache_dir, progress=place.progress)
    specs = checked.plan.specs
    masks, patients = {s.mask_id for s in specs}, {s.host.patient_id for s in specs}
    if len(masks) < LEAST_MASKS:
        raise table.error(
            f"rows.{row}",
            f"comes to {counted(len(masks), 'mask')}, and a comparison needs {LEAST_MASKS}; raise "
            "masks_per_case or give more hosts",
        )
    if len(patients) < LEAST_PATIENTS:
        yield (
            f"row '{row}' has {len(patients)} patients: without {LEAST_PATIENTS} its numbers have "
            "no intervals, and its floor is too low"
        )


def make_table(
    table: Table, extractors: Sequence[Extractor], place: Place
) -> tuple[TableResults, dict[str, dict[str, Path]]]:
    """Train, build and evaluate; run again to go on.

    Args:
        table: The recipe.
        extractors: Of features; radiomics and a network.
        place: Where and how.

    Returns:
        The results, and the dataset of each method by row.

    Raises:
        SynthCTError: If something is wrong, most of it before any work.
    """
    notes = check_table(table, place)
    if not any(one.name in NETWORKS for one in extractors):
        notes.append("no feature network is installed, so there is neither FID nor inception score")
    for note in notes:
        logger.warning("note: %s", note)
    make_folder(place.output)
    checkpoints = {method: _trained(table, method, place) for method in table.trainings}
    diary = Diary(place.output / "arms.kept")
    arms: dict[str, dict[str, Path]] = {}
    scores: list[Score] = []
    measures: list[Spread] = []
    for row in table.recipe.rows:
        arms[row] = {
            method: diary.build(
                table.dataset(row, method, checkpoints.get(method)),
                place.datasets(row, method),
                place,
            )
            for method in table.recipe.columns(row)
        }
        real = table.real(row)
        real_at = None if real is None else diary.build(real, place.datasets(row, "real"), place)
        found = _evaluated(table, arms[row], real_at, extractors, place)
        scores += [_of_row(score, row, arms[row]) for score in found.scores]
        measures += [_of_row(one, row, arms[row]) for one in found.measures]
        notes += [f"{row}: {note}" for note in found.notes]
    results = TableResults(
        package_version=__version__,
        name=table.recipe.name,
        description=table.recipe.description,
        rows=tuple(table.recipe.rows),
        methods=(*table.recipe.methods, *ALWAYS),
        extractor=next((n for n in NETWORKS if n in {e.name for e in extractors}), None),
        scores=tuple(scores),
        measures=tuple(measures),
        costs=tuple(_costs(table, arms, checkpoints, diary)),
        notes=tuple(dict.fromkeys(notes)),
    )
    return results, arms


def _trained(table: Table, method: str, place: Place) -> Path:
    """The checkpoint of a method, trained as long as its recipe says."""
    section = table.recipe.methods[method].train
    assert section is not None
    output = place.training(method)
    left = 60 * section.minutes - seconds_trained(output)
    if left > 0 or not (output / "checkpoint").is_dir():
        train(
            table.trainings[method],
            output,
            cache_dir=place.cache_dir,
            device=place.device,
            workers=place.workers,
            max_seconds=max(left, 0.0),
            progress_bar=place.progress,
        )
    return output / "checkpoint"


def seconds_trained(output: Path) -> float:
    """How long a training took to its latest state, in all of its runs, by its log; 0 before."""
    state, log = latest_state(output), output / "log.jsonl"
    if state is None or not log.is_file():
        return 0.0
    total = last = 0.0
    for line in log.read_text(errors="replace").splitlines():
        try:
            logged = json.loads(line)
            step, seconds = logged["step"], logged.get("seconds")
        except (ValueError, TypeError, KeyError, AttributeError):  # cut short by a kill, or damaged
            continue
        if isinstance(seconds, int | float) and step <= step_of(state):
            total += seconds - last if seconds >= last else seconds  # a new run counts from 0
            last = seconds
    return total


class Diary:
    """How long each dataset took; a file beside them.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: dict[str, float | None] = json.loads(read_kept(path) or b"{}")

    def build(self, recipe: Recipe, folder: Path, place: Place) -> Path:
        """Build a dataset, or take it if it is there; an interrupted one has no duration."""
        key = folder.relative_to(place.output).as_posix()
        started = time.monotonic()
        is_new = key not in self.seconds
        if is_new:
            self._note(key, None)
        made = build(
            recipe,
            folder,
            cache_dir=place.cache_dir,
            workers=0 if place.workers is None else place.workers,
            device=place.device,
            progress=place.progress,
        )
        if is_new:
            self._note(key, round(time.monotonic() - started, 2))
        return made

    def _note(self, key: str, seconds: float | None) -> None:
        self.seconds[key] = seconds
        write_kept(self.path, json.dumps(self.seconds, indent=1).encode())


def _evaluated(
    table: Table,
    arms: Mapping[str, Path],
    real: Path | None,
    extractors: Sequence[Extractor],
    place: Place,
) -> Any:
    """The evaluation of a row; its first method is the dataset, the others are arms."""
    first, *others = arms
    roots = {
        name: Path(section.root)
        for name, section in table.recipe.sources.items()
        if isinstance(section, FolderSection) and section.root is not None
    }
    options = Options(
        arms={method: arms[method] for method in others},
        real=real,
        roots=roots or None,
        # Volumes are boxes around their masks, of which slices show little more than crops do.
        scopes=("crop",) if table.recipe.view == "volume" else Options.scopes,
        by_label=False,
        progress=place.progress,
    )
    return evaluate(arms[first], extractors, options, cache_dir=place.cache_dir)


def _of_row(one: Any, row: str, arms: Mapping[str, Path]) -> Any:
    """A score or a measure under the titles of the table."""
    arm = next(iter(arms)) if one.arm == PAINTED else one.arm
    return one.model_copy(update={"group": row, "arm": arm})


def _costs(
    table: Table,
    arms: Mapping[str, Mapping[str, Path]],
    checkpoints: Mapping[str, Path],
    diary: Diary,
) -> Iterator[Cost]:
    for title, method in table.recipe.methods.items():
        network, files = method.inpaint.network, None
        if title in checkpoints:
            files = find_checkpoint(str(checkpoints[title]))
        elif network is not None:
            files = find_checkpoint(network.checkpoint, revision=network.revision)
        folders = [datasets[title] for datasets in arms.values() if title in datasets]
        keys = [f"datasets/{slug(row)}/{slug(title)}" for row in arms if title in arms[row]]
        took = [diary.seconds.get(key) for key in keys]
        samples = sum(require_manifest(folder).release.rows for folder in folders)
        known = None not in took and samples > 0
        yield Cost(
            method=title,
            parameters=None if files is None else count_parameters(files),
            training_minutes=None if method.train is None else method.train.minutes,
            steps=None if files is None else files.training.get("steps"),
            seconds_per_sample=sum(s for s in took if s is not None) / samples if known else None,
        )


def count_parameters(files: CheckpointFiles) -> int:
    """The numbers in a checkpoint's weights, from the heads of its files."""
    from safetensors import safe_open

    total = 0
    for weights in files.network.layout.weights:
        with safe_open(files.folder / weights, framework="np") as stored:
            for name in stored.keys():  # noqa: SIM118 (no mapping)
                count = 1
                for side in stored.get_slice(name).get_shape():
                    count *= side
                total += count
    return total

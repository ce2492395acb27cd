"""Whether a dataset is what it says it is, in four levels.

0: every byte is the manifest's. 1: files, rows, digests, splits, licence and documents agree.
2: with the sources at hand, every mask is drawn again and every voxel outside of it is the
source's. 3: some samples are painted again. Levels 0 and 1 prove integrity, 2 the plan, only 3 the
pixels; none proves who made it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from synthct.build.check import Checked, locked_origins, require_adapted
from synthct.build.check import check as check_recipe
from synthct.build.context import BuildContext, load_context, references_of
from synthct.build.draw import masks_of
from synthct.build.verify.documents import check_documents, check_files
from synthct.build.verify.replay import check_inputs, check_paint, check_plan, choose
from synthct.dataset.content import check_content
from synthct.dataset.finding import Finding
from synthct.dataset.first_format import FIRST_FORMAT, recipe_id
from synthct.dataset.integrity import check_bytes
from synthct.dataset.lockfile import LOCK, Lock, read_lock, work_id
from synthct.dataset.manifest import (
    MANIFEST,
    Manifest,
    Release,
    dataset_near,
    read_manifest,
    require_folder,
)
from synthct.dataset.records import RECIPE
from synthct.errors import PolicyError, RecipeError, ResourceError, VerifyError, counted
from synthct.licence import licence_of
from synthct.processes.device import choose_device
from synthct.recipe.recipe import Recipe, load_recipe, stored_recipe
from synthct.recipe.roots import require_roots
from synthct.storage.defaults import default_cache_dir, default_workers

#: Samples that level 3 paints again, unless more are asked for.
SAMPLES = 8


@dataclass(frozen=True)
class Report:
    """The result of a check.

    Attributes:
        release: The dataset's release; None if its manifest cannot be read.
        levels: For each level that was checked, in order, what was looked at.
        findings: What is wrong, of the last of these levels.
    """

    release: Release | None
    levels: tuple[str, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Originals:
    """Inputs of levels 2 and 3 beside the dataset.

    Attributes:
        sources: Roots by name of the source in the recipe.
        checkpoint: The folder of the checkpoint, where the recipe names one by its folder.
        cache_dir: Where indexes and phantoms are kept; by default the user's cache folder.
        workers: Processes that draw masks.
        device: Where the model runs; by default on a CPU if the dataset was made on one, so that
            its bits can be compared, else on a GPU if there is one.
        samples: How many samples level 3 paints again, at least.
        seed: Another seed, other samples.
        relabel: The user's command for recipes with ``label_map: relabel``.
        progress: Show a progress bar while sources are read for the first time.
    """

    sources: Mapping[str, Path] = field(default_factory=dict)
    checkpoint: Path | None = None
    cache_dir: Path | None = None
    workers: int | None = None
    device: str | None = None
    samples: int = SAMPLES
    seed: int = 0
    relabel: Sequence[str] | None = None
    progress: bool = False


def verify(folder: Path, *, level: int = 1, originals: Originals | None = None) -> Report:
    """Check a dataset, level by level; one that finds something is the last.

    Args:
        folder: The dataset's folder.
        level: The highest level to check.
        originals: Where the sources are; needed from level 2 on.

    Raises:
        ResourceError: If there is no such folder.
        SynthCTError: If sources or checkpoint are not there or cannot be read.
    """
    require_folder(folder)
    try:
        manifest = read_manifest(folder)
    except VerifyError as err:
        return Report(None, ("level 0: the manifest",), (Finding(MANIFEST, str(err)),))
    if manifest is None:
        message = f"is missing: this is no finished dataset; {dataset_near(folder)}"
        missing = Finding(MANIFEST, message)
        return Report(None, ("level 0: the manifest",), (missing,))
    levels_of = _Levels(folder, manifest, originals or Originals())
    checks = (levels_of.bytes, levels_of.content, levels_of.plan, levels_of.paint)
    levels: list[str] = []
    findings: list[Finding] = []
    for check in checks[: level + 1]:
        title, findings = check()
        levels.append(f"level {len(levels)}: {title}")
        if findings:
            break
    return Report(manifest.release, tuple(levels), tuple(findings))


def _device(wanted: str | None, lock: Lock) -> str:
    was_on_cpu = lock.numerics.get("device") == "cpu"
    return "cpu" if wanted is None and was_on_cpu else choose_device(wanted)


Checking = tuple[str, list[Finding]]


class _Levels:
    """The four checks of a dataset; its originals are read only when a level needs them."""

    def __init__(self, folder: Path, manifest: Manifest, originals: Originals) -> None:
        self.folder, self.manifest, self.originals = folder, manifest, originals

    def bytes(self) -> Checking:
        """Level 0."""
        size = sum(entry.bytes for entry in self.manifest.files)
        title = f"{counted(len(self.manifest.files), 'file')} of {size:,} bytes"
        return title, check_bytes(self.folder, self.manifest)

    def content(self) -> Checking:
        """Level 1."""
        title = f"{counted(self.manifest.release.rows, 'row')}, lock, splits, licence and documents"
        return title, list(_content(self.folder, self.manifest))

    def plan(self) -> Checking:
        """Level 2."""
        title = f"{counted(self.manifest.release.rows, 'row')}, masks and measures from the sources"
        lock, checked = self._checked
        if findings := list(check_inputs(checked, lock)):
            return "the sources against the lock", findings
        given = self.originals
        workers = default_workers() if given.workers is None else given.workers
        references = references_of(checked, given.cache_dir, progress=given.progress)
        context = BuildContext(checked, lock.numerics, references=references)
        return title, [*check_plan(self.folder, self.manifest, context, workers)]

    def paint(self) -> Checking:
        """Level 3."""
        lock, checked = self._checked
        given = self.originals
        context = load_context(
            checked,
            partial(_device, given.device, lock),
            cache_dir=given.cache_dir,
            relabel=given.relabel,
            limits=lock.limits,
        )
        groups = choose(checked, given.samples, given.seed)
        results = list(check_paint(self.folder, self.manifest, lock, context, groups))
        findings = [one for one in results if isinstance(one, Finding)]
        again = f"{counted(len(results), 'sample')} painted again"
        if dict(context.numerics) != lock.numerics:
            how = "in another numerics class, so compared within 2 HU and never called identical"
            return f"{again}, {how}", findings
        share = min(1.0, 3 / max(1, len(results)))
        odds = f"with 95 % confidence fewer than {share:.1%} of all are altered"
        if len(groups) == len(masks_of(checked.plan.specs)):
            odds = "all of them"
        return f"{again}, bit for bit ({odds})", findings

    @cached_property
    def _checked(self) -> tuple[Lock, Checked]:
        """The lock, and the recipe with the sources and the checkpoint that the user gave."""
        if self.manifest.release.format_version == FIRST_FORMAT:
            raise VerifyError(
                f"{self.folder} is of format {FIRST_FORMAT}, whose masks this synthct does not "
                "draw again; verify it with --level 1"
            )
        given, lock = self.originals, read_lock(self.folder)
        require_roots(self.folder / RECIPE, given.sources)
        recipe = load_recipe(
            self.folder / RECIPE, sources=given.sources, checkpoint=given.checkpoint
        )
        checked = check_recipe(
            recipe.model_copy(update={"review": None}),  # its table is not of the dataset
            cache_dir=given.cache_dir or default_cache_dir(),
            limit=lock.plan.limit,
            progress=given.progress,
        )
        require_adapted(checked)
        if checked.checkpoint is not None and lock.checkpoint is not None:
            # a checkpoint is identified by its hashes, so its folder may have another name
            files = replace(checked.checkpoint, name=lock.checkpoint.name)
            checked = replace(checked, checkpoint=files)
        return lock, checked


def _content(folder: Path, manifest: Manifest) -> Iterator[Finding]:
    """Files, then rows, then what is written of them: each only if all before is as it should."""
    recipe: Recipe | None = None
    try:
        is_first = manifest.release.format_version == FIRST_FORMAT
        # of format 1.0.0 a recipe has keys that today's have not, so it is not parsed as one
        recipe = None if is_first else stored_recipe(folder / RECIPE)
        lock = read_lock(folder)
        stored_id = recipe_id(folder) if recipe is None else recipe.recipe_id
    except (RecipeError, VerifyError, ResourceError) as err:
        yield Finding(RECIPE if isinstance(err, RecipeError) else LOCK, str(err))
        return
    checks = (
        lambda: check_files(manifest),
        lambda: check_content(folder, manifest, lock),
        lambda: _check_lock(manifest.release, recipe, stored_id, lock),
        lambda: check_documents(folder, manifest, lock, recipe),
    )
    for check in checks:
        if findings := list(check()):
            yield from findings
            return


def _check_lock(
    release: Release, recipe: Recipe | None, stored_id: str, lock: Lock
) -> Iterator[Finding]:
    """That release, recipe and lock belong to each other, and the licence to the sources."""
    if lock.recipe_id != stored_id:
        yield Finding(LOCK, f"recipe_id is not that of {RECIPE}")
    checkpoint_id = lock.checkpoint.id if lock.checkpoint else None
    if work_id(lock.recipe_id, lock.plan.id, checkpoint_id, lock.sources) != release.plan_id:
        yield Finding(LOCK, "is not the lock of the manifest's plan_id")
    if recipe is None:
        return
    if (lock.review and lock.review.sha256) != (recipe.review and recipe.review.sha256):
        yield Finding(LOCK, f"has another table of verdicts than {RECIPE}")
    if lock.sources.keys() != recipe.sources.keys():
        yield Finding(LOCK, f"has other sources than {RECIPE}")
        return
    for source, section in recipe.sources.items():
        for key in ("layout", "licence", "attribution"):
            if getattr(lock.sources[source], key) != getattr(section, key):
                yield Finding(LOCK, f"the {key} of source '{source}' is not that of {RECIPE}")
    name = recipe.version if lock.plan.limit is None else f"{recipe.version}-first{lock.plan.limit}"
    if (release.name, release.version) != (recipe.name, name):
        called = f"the manifest is of {release.name} {release.version}"
        yield Finding(RECIPE, f"is of {recipe.name} {name}, {called}")
    try:
        licence = licence_of(locked_origins(lock), stated=recipe.licence)
    except PolicyError as err:
        yield Finding(LOCK, str(err))
        return
    if licence != lock.licence:
        yield Finding(LOCK, f"licence is {lock.licence}, from the sources follows {licence}")

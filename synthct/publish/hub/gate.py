"""Local checks of a dataset or checkpoint before it is published."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from synthct.build.check import locked_origins, trained_under
from synthct.build.verify.run import verify
from synthct.dataset.lockfile import read_lock
from synthct.dataset.manifest import MANIFEST, read_manifest
from synthct.dataset.markdown import inert
from synthct.dataset.records import front_matter
from synthct.errors import CheckpointError, PolicyError, RecipeError, VerifyError
from synthct.licence import Origin, hub_fields, licence_of, terms_of
from synthct.models.checkpoint import PACKAGE_PREFIX, find_checkpoint, load_checkpoint
from synthct.models.folder import BESIDE, SUMS, TRAINING
from synthct.models.layout import INDEX
from synthct.models.network import CheckpointFiles, described
from synthct.publish.hub.bundle import CARD, Bundle, Item
from synthct.publish.hub.leaks import require_no_leaks

#: An owner and a name, as the Hub allows them.
_REPO = re.compile(r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?/[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?")
_LONGEST_REPO = 96

#: A valid git tag, without characters that need quoting in a URL.
_TAG = re.compile(r"[A-Za-z0-9](?:[\w.+-]*[A-Za-z0-9])?")

_PICTURE = re.compile(r"!\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)")
_PICTURE_KINDS = (".png", ".jpg", ".jpeg")


def require_repo_name(repo: str) -> None:
    """Raise a `RecipeError` if ``repo`` is not a valid ``USER/NAME``."""
    odd = ".." in repo or "--" in repo or repo.endswith(".git") or len(repo) > _LONGEST_REPO
    if odd or not _REPO.fullmatch(repo):
        raise RecipeError(
            f"--repo {repo}: write USER/NAME, such as jane/kits-tumors: letters, digits, '-', '_' "
            f"and '.', at most {_LONGEST_REPO} characters"
        )


def pack(
    path: str,
    *,
    tag: str | None = None,
    card: Path | None = None,
    secrets: Sequence[str] = (),
    privacy: str = "",
) -> Bundle:
    """Check a dataset's version or a checkpoint, and list the files to publish.

    Args:
        path: A folder, or the ``package:`` name of a checkpoint.
        tag: Version of a checkpoint; a dataset has its own.
        card: A card for a checkpoint, in place of the one in its folder.
        secrets: Texts that must not be in any file, such as the user's token.
        privacy: What is known of copies of training patients (``hub.privacy``); a checkpoint's
            card says it too.

    Raises:
        RecipeError: If the options do not fit.
        VerifyError: If a dataset does not match its manifest.
        CheckpointError: If a checkpoint cannot be loaded, or lacks metadata.
        PolicyError: If a licence is unknown or forbids it, or a file has secrets or local paths.
    """
    if (Path(path) / MANIFEST).exists():
        if tag is not None or card is not None:
            option = "--tag" if tag is not None else "--card"
            raise RecipeError(f"{option} is for checkpoints; a dataset has its version and card")
        bundle = _dataset(Path(path))
    elif path.startswith(PACKAGE_PREFIX) or (Path(path) / INDEX).exists():
        if tag is not None and not _TAG.fullmatch(tag):
            raise RecipeError(f"--tag {tag}: write a version such as 1.0.0")
        bundle = _checkpoint(path, tag, card, privacy)
    else:
        raise RecipeError(
            f"{path} is neither a dataset's version (a folder with {MANIFEST}) nor a checkpoint "
            f"(a folder with {INDEX}, or package:NAME)"
        )
    require_no_leaks(bundle.items, secrets)
    return bundle


def _dataset(folder: Path) -> Bundle:
    report = verify(folder, level=1)
    if report.findings:
        listed = "\n".join(f"  {finding}" for finding in report.findings)
        raise VerifyError(f"{folder} does not match its manifest, so it is not published\n{listed}")
    manifest, lock = read_manifest(folder), read_lock(folder)
    assert manifest is not None, "verify has read it"
    licence = _publishable(locked_origins(lock), lock.licence)
    entries = [
        Item(entry.path, folder / entry.path, entry.bytes, entry.sha256) for entry in manifest.files
    ]
    items = (*entries, Item.of(MANIFEST, folder / MANIFEST))
    _require_card(items, licence)
    is_real = any(source.layout != "phantom" for source in lock.sources.values())
    shows_scans = is_real and manifest.release.patch_id is None
    return Bundle(
        kind="dataset",
        name=manifest.release.name,
        version=manifest.release.version,
        content_id=manifest.release.content_id,
        licence=licence,
        items=_in_order(items),
        gated="it shows scans of real patients" if shows_scans else _terms(licence),
    )


def _checkpoint(path: str, tag: str | None, card: Path | None, privacy: str) -> Bundle:
    files = find_checkpoint(path)
    if files.network.section is None:
        raise CheckpointError(f"{described(files)}; only checkpoints of synthct are published")
    lacking = [n for n in (SUMS, TRAINING, CARD) if not (files.folder / n).is_file()]
    if lacking:
        raise CheckpointError(
            f"checkpoint '{files.name}' lacks {', '.join(lacking)}, without which it is not "
            "published; 'synthct train' writes all of them"
        )
    licence = _publishable(trained_under(files), files.training.get("licence"))
    load_checkpoint(files)
    own = (files.folder / CARD).read_text(encoding="utf-8")
    page, beside = (own, files.folder) if card is None else (_page(own, card), card.parent)
    extras = [name for name in BESIDE if (files.folder / name).is_file()]
    names = [name for name in (*files.hashes, *extras, SUMS) if name != CARD]
    items = [Item.of(name, files.folder / name) for name in names]
    items += [Item.of(name, beside / name) for name in _pictures(page, beside)]
    page += f"\n## Privacy\n\n{inert(privacy)}\n" if privacy else ""
    items.append(Item.of(CARD, page.encode()))
    _require_card(items, licence)
    _require_unchanged(files, items)
    return Bundle(
        kind="model",
        name=str(files.training.get("name") or files.name.removeprefix(PACKAGE_PREFIX)),
        version=tag,
        content_id=files.checkpoint_id,
        licence=licence,
        items=_in_order(items),
        gated=_terms(licence),
    )


def _publishable(origins: Iterable[Origin], stated: str | None) -> str:
    """The licence, if those of all origins are known and allow redistribution."""
    chain = list(origins)
    for origin in chain:
        if terms_of(origin.licence) is None:
            what = "unknown" if origin.licence is None else f"'{origin.licence}', not a known one"
            raise PolicyError(
                f"the licence of {origin.name} is {what}, so this is not published; if you may "
                "pass it on, state it as an SPDX id such as CC-BY-4.0 (of a source: licence in the "
                "recipe; of a checkpoint: licence in its training.json) and make it anew under a "
                "higher version"
            )
    licence = licence_of(chain, stated=stated)
    if licence is None:
        raise PolicyError("the sources and their licences are unknown, so this is not published")
    return licence


def _require_card(items: Iterable[Item], licence: str) -> None:
    """Raise an error if the card is missing, or its header has another licence."""
    page = next((item for item in items if item.path == CARD), None)
    if page is None:
        raise VerifyError(f"there is no {CARD}; a dataset or checkpoint is published with its card")
    header = front_matter(page.read().decode("utf-8", "replace"))
    for key, value in hub_fields(licence).items():
        if header.get(key) != value:
            raise PolicyError(
                f"the header of {CARD} says {key}: {header.get(key)}, but {value} follows from the "
                "sources; correct the card"
            )


def _require_unchanged(files: CheckpointFiles, items: Iterable[Item]) -> None:
    """Raise an error if a file has changed since the check."""
    for item in items:
        if files.hashes.get(item.path, item.sha256) != item.sha256:
            raise CheckpointError(f"checkpoint '{files.name}': {item.path} changed meanwhile")


def _page(own: str, card: Path) -> str:
    """The user's card of a checkpoint; without a header, that of the folder's card is added."""
    page = card.read_text(encoding="utf-8")
    if front_matter(page):
        return page
    return f"---\n{own[4:].partition(_END)[0]}{_END}\n{page}"


_END = "\n---\n"


def _pictures(page: str, folder: Path) -> Iterator[str]:
    """Paths of the local pictures that a card shows."""
    for name in sorted(set(_PICTURE.findall(page))):
        path = PurePosixPath(name)
        if "://" in name or path.suffix.lower() not in _PICTURE_KINDS:
            continue
        if path.is_absolute() or ".." in path.parts or (folder / path).is_symlink():
            raise RecipeError(f"the card shows {name}, which is not beside the card; move it there")
        if not (folder / path).is_file():
            raise RecipeError(
                f"the card shows {name}, which does not exist; remove it from the card"
            )
        yield path.as_posix()


def _terms(licence: str) -> str | None:
    """Why the licence requires readers to agree to terms; None if it does not."""
    terms = terms_of(licence)
    if terms is None or not terms.non_commercial:
        return None
    return f"{licence} forbids commercial use"


def _in_order(items: Iterable[Item]) -> tuple[Item, ...]:
    return tuple(sorted(items, key=lambda item: (-item.size, item.path)))

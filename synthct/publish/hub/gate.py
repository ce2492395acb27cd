"""What may be published: checked on this machine, before anything goes up."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from synthct.build.check import locked_origins, trained_under
from synthct.build.verify.run import verify
from synthct.dataset.lockfile import read_lock
from synthct.dataset.manifest import MANIFEST, read_manifest
from synthct.dataset.records import front_matter
from synthct.errors import CheckpointError, PolicyError, RecipeError, VerifyError
from synthct.licence import Origin, hub_fields, licence_of, terms_of
from synthct.models.checkpoint import PACKAGE_PREFIX, find_checkpoint, load_checkpoint
from synthct.models.folder import SUMS, TRAINING
from synthct.models.layout import INDEX
from synthct.models.network import CheckpointFiles, described
from synthct.publish.hub.leaks import require_no_leaks
from synthct.publish.hub.parcel import CARD, Item, Parcel

#: An owner and a name, as the Hub allows them.
_REPO = re.compile(r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?/[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?")
_LONGEST_REPO = 96

#: A name that git takes for a tag, without what would have to be quoted in an address.
_TAG = re.compile(r"[A-Za-z0-9](?:[\w.+-]*[A-Za-z0-9])?")

_PICTURE = re.compile(r"!\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)")
_PICTURE_KINDS = (".png", ".jpg", ".jpeg")


def require_repo_name(repo: str) -> None:
    """Refuse what is no name of a repository.

    Raises:
        RecipeError: If it is not of the form ``USER/NAME``.
    """
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
) -> Parcel:
    """Check a dataset's version or a checkpoint, and list what of it goes up.

    Args:
        path: A folder, or the ``package:`` name of a checkpoint.
        tag: What a checkpoint's version is called; a dataset knows its own.
        card: A page for a checkpoint, in place of the one in its folder.
        secrets: What must not be in any file, such as the user's own token.

    Raises:
        RecipeError: If the options do not fit.
        VerifyError: If a dataset is not what it says it is.
        CheckpointError: If a checkpoint cannot be loaded, or says too little of itself.
        PolicyError: If a licence is unknown or forbids it, or if secrets or paths would go up.
    """
    if (Path(path) / MANIFEST).exists():
        if tag is not None or card is not None:
            option = "--tag" if tag is not None else "--card"
            raise RecipeError(f"{option} is for checkpoints; a dataset has its version and card")
        parcel = _dataset(Path(path))
    elif path.startswith(PACKAGE_PREFIX) or (Path(path) / INDEX).exists():
        if tag is not None and not _TAG.fullmatch(tag):
            raise RecipeError(f"--tag {tag}: write a version such as 1.0.0")
        parcel = _checkpoint(path, tag, card)
    else:
        raise RecipeError(
            f"{path} is neither a dataset's version (a folder with {MANIFEST}) nor a checkpoint "
            f"(a folder with {INDEX}, or package:NAME)"
        )
    require_no_leaks(parcel.items, secrets)
    return parcel


def _dataset(folder: Path) -> Parcel:
    report = verify(folder, level=1)
    if report.findings:
        shown = "\n".join(f"  {finding}" for finding in report.findings)
        raise VerifyError(f"{folder} is not what it says it is, so it is not published\n{shown}")
    manifest, lock = read_manifest(folder), read_lock(folder)
    assert manifest is not None, "verify has read it"
    licence = _publishable(locked_origins(lock), lock.licence)
    listed = [
        Item(entry.path, folder / entry.path, entry.bytes, entry.sha256) for entry in manifest.files
    ]
    items = (*listed, Item.of(MANIFEST, folder / MANIFEST))
    _require_card(items, licence)
    is_real = any(source.layout != "phantom" for source in lock.sources.values())
    shows_scans = is_real and manifest.release.patch_id is None
    return Parcel(
        kind="dataset",
        name=manifest.release.name,
        version=manifest.release.version,
        content_id=manifest.release.content_id,
        licence=licence,
        items=_in_order(items),
        gated="it shows scans of real patients" if shows_scans else _terms(licence),
    )


def _checkpoint(path: str, tag: str | None, card: Path | None) -> Parcel:
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
    names = [name for name in (*files.hashes, TRAINING, SUMS) if name != CARD]
    items = [Item.of(name, files.folder / name) for name in names]
    items += [Item.of(name, beside / name) for name in _pictures(page, beside)]
    items.append(Item.of(CARD, page.encode()))
    _require_card(items, licence)
    _require_unchanged(files, items)
    return Parcel(
        kind="model",
        name=str(files.training.get("name") or files.name.removeprefix(PACKAGE_PREFIX)),
        version=tag,
        content_id=files.checkpoint_id,
        licence=licence,
        items=_in_order(items),
        gated=_terms(licence),
    )


def _publishable(origins: Iterable[Origin], stated: str | None) -> str:
    """The licence, if all that it follows from is known and allows to pass it on."""
    chain = list(origins)
    for origin in chain:
        if terms_of(origin.licence) is None:
            what = "unknown" if origin.licence is None else f"'{origin.licence}', not one known"
            raise PolicyError(
                f"the licence of {origin.name} is {what}, so this is not published; if you may "
                "pass it on, state it as an SPDX id such as CC-BY-4.0 (of a source: licence in the "
                "recipe; of a checkpoint: licence in its training.json) and make it anew under a "
                "higher version"
            )
    licence = licence_of(chain, stated=stated)
    if licence is None:
        raise PolicyError("nothing is known of what this was made from, so it is not published")
    return licence


def _require_card(items: Iterable[Item], licence: str) -> None:
    """Refuse a card that is not there, or whose header is not what the Hub is to be told."""
    page = next((item for item in items if item.path == CARD), None)
    if page is None:
        raise VerifyError(f"there is no {CARD}: a dataset or checkpoint goes up with its card")
    header = front_matter(page.read().decode("utf-8", "replace"))
    for key, value in hub_fields(licence).items():
        if header.get(key) != value:
            raise PolicyError(
                f"the header of {CARD} says {key}: {header.get(key)}, from the sources follows "
                f"{value}; mend the card"
            )


def _require_unchanged(files: CheckpointFiles, items: Iterable[Item]) -> None:
    """Make sure that what goes up is what was checked."""
    for item in items:
        if files.hashes.get(item.path, item.sha256) != item.sha256:
            raise CheckpointError(f"checkpoint '{files.name}': {item.path} changed meanwhile")


def _page(own: str, card: Path) -> str:
    """A checkpoint's page: with the header of its folder's card, unless it has one itself."""
    page = card.read_text(encoding="utf-8")
    if front_matter(page):
        return page
    return f"---\n{own[4:].partition(_END)[0]}{_END}\n{page}"


_END = "\n---\n"


def _pictures(page: str, folder: Path) -> Iterator[str]:
    """The pictures beside a card that it shows."""
    for name in sorted(set(_PICTURE.findall(page))):
        path = PurePosixPath(name)
        if "://" in name or path.suffix.lower() not in _PICTURE_KINDS:
            continue
        if path.is_absolute() or ".." in path.parts or (folder / path).is_symlink():
            raise RecipeError(f"the card shows {name}, which does not lie beside it; move it there")
        if not (folder / path).is_file():
            raise RecipeError(f"the card shows {name}, which is not there; take it out of the card")
        yield path.as_posix()


def _terms(licence: str) -> str | None:
    """Why readers should have to agree first, if it is for the licence."""
    terms = terms_of(licence)
    if terms is None or not terms.non_commercial:
        return None
    return f"{licence} forbids commercial use"


def _in_order(items: Iterable[Item]) -> tuple[Item, ...]:
    return tuple(sorted(items, key=lambda item: (-item.size, item.path)))

"""What is had from the Hugging Face Hub: files of a repository, at one commit."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from synthct.errors import HubError, ResourceError
from synthct.storage.cache import DamageError, check_kept, write_kept
from synthct.storage.files import sha256_of

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

logger = logging.getLogger(__name__)

#: A Hub id: owner and name.
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
COMMIT = re.compile(r"[0-9a-f]{40}")

#: What the client raises when an answer is not what it asked for.
NONSENSE = (ValueError, KeyError, TypeError, AttributeError)

#: Kept file in a folder of files that are all there: their digests, sizes and times.
_COMPLETE = ".complete"
#: Larger files are not hashed again while size and times are as they were: what reads a scan
#: compares its hash with that of the index.
_SMALL = 1 << 20
_SILENCE_S = 30.0
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}  # which name no file


@contextmanager
def asking_hub(what: str) -> Iterator[None]:
    """Say in one way that the Hub does not deliver, and what to do.

    Args:
        what: What it is asked for, as the user named it.

    Raises:
        HubError: If the Hub refuses, has no such thing or cannot be reached.
        ResourceError: If there is no place for it on this machine.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HTTPError, RevisionResolutionError

    try:
        yield
    except (*NONSENSE, OSError, HTTPError, RevisionResolutionError) as err:
        if isinstance(err, OSError) and (err.filename is not None or err.errno in _DISK_FULL):
            raise ResourceError(f"{err.filename or what}: cannot be written ({err})") from err
        reason = " ".join(str(err).split())
        reason = reason.replace(get_token() or "\0", "<token>")  # a server may repeat what it got
        raise HubError(
            f"{what}: the Hub did not deliver it ({reason}); check both names and the connection, "
            "and log in if it is private"
        ) from None


def dataset_files(
    name: str, revision: str, patterns: Sequence[str], cache_dir: Path
) -> tuple[Path, str]:
    """The files of a dataset repository at one commit, downloaded unless they are here already.

    They are plain files, no links into a store, each compared with the Hub's digest of it. Once
    they are here, the commit is all that the Hub must be asked for, and not even that if
    ``revision`` is the commit itself. What is damaged is downloaded again, with a warning.

    Args:
        name: The repository, ``owner/name``.
        revision: Tag, branch or commit.
        patterns: Which files, as ``fnmatch`` understands them (``*`` also stands for ``/``).
        cache_dir: Where they are kept.

    Returns:
        Their folder, and the commit.

    Raises:
        HubError: If the Hub does not deliver them.
        ResourceError: If there is no place for them.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils import filter_repo_objects

    key = hashlib.sha256("\n".join(patterns).encode()).hexdigest()[:12]
    home = cache_dir / "hub" / name.replace("/", "--")
    what = f"dataset repository '{name}' at revision '{revision}'"
    if COMMIT.fullmatch(revision) and is_here(home / revision / key):
        return home / revision / key, revision
    with asking_hub(what):
        info = HfApi().dataset_info(
            name, revision=revision, timeout=_SILENCE_S, files_metadata=True
        )
        commit = str(info.sha)
        folder = home / commit / key
        if is_here(folder):
            return folder, commit
        logger.info("downloading %s, commit %s", what, commit)
        folder.mkdir(parents=True, exist_ok=True)
        snapshot_download(
            name,
            repo_type="dataset",
            revision=commit,
            allow_patterns=list(patterns),
            local_dir=folder,
        )
        listed = {file.rfilename: file for file in info.siblings or ()}
        names = sorted(filter_repo_objects(listed, allow_patterns=list(patterns)))
        for file in names:
            if not (folder / file).is_file():  # the client may settle for what came before a break
                raise OSError(f"{file} did not come; run the same command again")
            if not _is_of_hub(folder / file, listed[file]):
                (folder / file).unlink()  # else the client would take it for good
                raise OSError(f"{file} came with other bytes; run the same command again")
        note_files(folder, names)
    return folder, commit


def note_files(folder: Path, names: Sequence[str]) -> None:
    """Note that the files of a download are all there, with their digests.

    Args:
        folder: The folder of the download.
        names: The files, relative to it.

    Raises:
        ResourceError: If it cannot be written.
    """
    noted = {name: [sha256_of(folder / name), *_stamp(folder / name)] for name in names}
    write_kept(folder / _COMPLETE, json.dumps(noted).encode(), name=_called(folder))


def is_here(folder: Path) -> bool:
    """Whether a download is there with every byte; what is damaged is deleted, with a warning."""
    noted = folder / _COMPLETE
    try:
        files = json.loads(check_kept(noted, name=_called(folder)))
    except FileNotFoundError:
        return False
    except DamageError as err:
        return _discard(noted, noted, str(err))
    for name, (sha256, *stamp) in files.items():
        path = folder / name
        try:
            is_known = _stamp(path) == stamp and stamp[0] > _SMALL
            intact = is_known or sha256_of(path) == sha256
        except (OSError, ResourceError):
            intact = False
        if not intact:
            return _discard(path, noted, "missing, or not the file that was downloaded")
    return True


def _discard(path: Path, noted: Path, reason: str) -> Literal[False]:
    logger.warning("%s is damaged (%s) and fetched again from the Hub", path, reason)
    for one in (path, noted):
        one.unlink(missing_ok=True)
    return False


def _called(folder: Path) -> str:
    """What the digest calls the note of a download: commit and patterns."""
    return f"{folder.parent.name}/{folder.name}"


def _stamp(path: Path) -> list[int]:
    state = path.stat()
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns]


def _is_of_hub(path: Path, listed: RepoSibling) -> bool:
    """Whether a file has the digest that the Hub gives: SHA-256 of large ones, else that of git."""
    if listed.lfs is not None:
        return sha256_of(path) == listed.lfs.sha256
    content = path.read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
    return listed.blob_id is None or blob.hexdigest() == listed.blob_id

"""What is had from the Hugging Face Hub: files of a repository, at one commit."""

from __future__ import annotations

import errno
import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from synthct.errors import HubError, ResourceError

logger = logging.getLogger(__name__)

#: A Hub id: owner and name.
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
COMMIT = re.compile(r"[0-9a-f]{40}")

#: What the client raises when an answer is not what it asked for.
NONSENSE = (ValueError, KeyError, TypeError, AttributeError)

#: In a folder of files that are all there.
_COMPLETE = ".complete"
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
    from huggingface_hub.errors import HTTPError, RevisionResolutionError  # type: ignore[attr-defined]

    try:
        yield
    except (*NONSENSE, OSError, HTTPError, RevisionResolutionError) as err:
        if isinstance(err, OSError) and (err.filename is not None or err.errno in _DISK_FULL):
            raise ResourceError(f"{err.filename or what}: cannot be written ({err})") from err
        said = " ".join(str(err).split())
        said = said.replace(get_token() or "\0", "<token>")  # a server may repeat what it got
        raise HubError(
            f"{what}: the Hub did not deliver it ({said}); check both names and the connection, "
            "and log in if it is private"
        ) from None


def dataset_files(
    name: str, revision: str, patterns: Sequence[str], cache_dir: Path
) -> tuple[Path, str]:
    """The files of a dataset repository at one commit, downloaded unless they are here already.

    They are plain files, no links into a store. Once they are here, the commit is all that the
    Hub must be asked for, and not even that if ``revision`` is the commit itself.

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
    from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

    key = hashlib.sha256("\n".join(patterns).encode()).hexdigest()[:12]
    home = cache_dir / "hub" / name.replace("/", "--")
    what = f"dataset repository '{name}' at revision '{revision}'"
    if COMMIT.fullmatch(revision) and (home / revision / key / _COMPLETE).is_file():
        return home / revision / key, revision
    with asking_hub(what):
        info = HfApi().dataset_info(name, revision=revision, timeout=_SILENCE_S)
        commit = str(info.sha)
        folder = home / commit / key
        if (folder / _COMPLETE).is_file():
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
        names = (file.rfilename for file in info.siblings or ())
        for file in filter_repo_objects(names, allow_patterns=list(patterns)):
            if not (folder / file).is_file():  # the client may settle for what came before a break
                raise OSError(f"{file} did not come; run the same command again")
        (folder / _COMPLETE).touch()
    return folder, commit

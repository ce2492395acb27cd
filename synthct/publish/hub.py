"""The Hub, with patience that ends: one repository, and each request to it tried for minutes.

``huggingface_hub`` by itself waits for an answer without end, and as long as a server asks it to.
Here requests time out, what may pass is tried again with growing pauses (or those that the Hub asks
for), and after ``Patience.give_up_s`` it is over.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    RepoFile,
    hf_hub_url,
    set_client_factory,
)
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    are_progress_bars_disabled,
    build_hf_headers,
    disable_progress_bars,
    enable_progress_bars,
    get_session,
    hf_raise_for_status,
    httpx,
)
from huggingface_hub.utils._http import default_client_factory, hf_request_event_hook

from synthct.errors import ConflictError, HubError, PolicyError
from synthct.publish.parcel import Item, Kind, Stored, Tree

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

#: Answers that may be others the next time.
_PASSING = (408, 429, 500, 502, 503, 504)
#: Somebody else is at it: to be looked at anew.
_IN_THE_WAY = (409, 412)

#: What the client raises when an answer is not what it asked for.
_NONSENSE = (ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True)
class Patience:
    """How long the Hub is waited for.

    Attributes:
        silence_s: For a sign of life within a request.
        first_s: Before the second try; each later pause is twice as long.
        longest_s: The longest pause, if the Hub does not ask for a longer one.
        give_up_s: After the first failure of a request, for it to succeed.
    """

    silence_s: float = 30.0
    first_s: float = 1.0
    longest_s: float = 30.0
    give_up_s: float = 240.0


class TransientError(Exception):
    """A failure that may pass.

    Args:
        what: It was.
        pause_s: The Hub asks to wait for so long.
        in_the_way: Whether somebody else is at it.
    """

    def __init__(self, what: str, *, pause_s: float = 0.0, in_the_way: bool = False) -> None:
        super().__init__(what)
        self.what, self.pause_s, self.in_the_way = what, pause_s, in_the_way


class _Client(httpx.Client):
    """A client whose requests end: in an answer, or in an error that tells whether it may pass."""

    def __init__(self, silence_s: float) -> None:
        hooks = {"request": [hf_request_event_hook]}
        super().__init__(event_hooks=hooks, follow_redirects=True, timeout=silence_s)
        self._silence = httpx.Timeout(silence_s).as_dict()

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request and read the whole answer; all of them are small."""
        request.extensions = {**request.extensions, "timeout": self._silence}
        try:
            response = super().send(request, **options)
            response.read()
        except httpx.TransportError as err:
            raise TransientError(f"no answer ({type(err).__name__})") from err
        if response.status_code in _PASSING:
            asked = response.headers.get("Retry-After", "")
            what = f"it answered {response.status_code} {response.reason_phrase}"
            raise TransientError(what, pause_s=float(asked) if asked.isdecimal() else 0.0)
        return response


@dataclass(frozen=True)
class Refs:
    """Where a repository's branches and tags point to."""

    branches: dict[str, str]
    tags: dict[str, str]


class HubRepo:
    """A repository on the Hub, as one who may write to it sees it.

    Args:
        kind: What it holds.
        name: ``USER/NAME``.
        token: The user's; never shown, whatever the Hub answers.
        resume: The command that goes on where this one stops.
        patience: How long the Hub is waited for.
    """

    def __init__(
        self, kind: Kind, name: str, token: str, resume: str, patience: Patience | None = None
    ) -> None:
        self.kind, self.name = kind, name
        self._token, self._resume = token, resume
        self._patience = patience or Patience()
        self._api = HfApi(token=token)

    @property
    def url(self) -> str:
        """Its page."""
        return f"{self._api.endpoint}/{'datasets/' if self.kind == 'dataset' else ''}{self.name}"

    @contextmanager
    def open(self) -> Iterator[None]:
        """Let requests of this process go through a client whose patience ends."""
        shown = not are_progress_bars_disabled()
        disable_progress_bars()
        set_client_factory(lambda: _Client(self._patience.silence_s))
        try:
            yield
        finally:
            set_client_factory(default_client_factory)
            if shown:
                enable_progress_bars()

    def persist(self, step: Callable[[], Result]) -> Result:
        """Take a step, again and again while what fails may pass.

        Args:
            step: Looks at what there is before it changes anything, so that it may be repeated.

        Raises:
            HubError: If the Hub refuses, or if it does not pass in time.
            ConflictError: If somebody else stays in the way.
        """
        patience, wait, until = self._patience, self._patience.first_s, None
        while True:
            try:
                return step()
            except Exception as err:
                failure = self._transient(err)
            until = until or time.monotonic() + patience.give_up_s
            pause = max(wait, failure.pause_s)
            if time.monotonic() + pause > until:
                kind = ConflictError if failure.in_the_way else HubError
                raise kind(self._told(failure.what)) from None
            what = self._clean(failure.what)
            logger.info("%s: the Hub: %s; trying again in %.0f s", self.name, what, pause)
            time.sleep(pause)
            wait = min(2 * wait, patience.longest_s)

    def require_writer(self) -> None:
        """Refuse a token that the Hub does not know, or that may only read."""
        found = self.persist(self._api.whoami)
        if found.get("auth", {}).get("accessToken", {}).get("role") == "read":
            raise HubError(
                self._told("the token may only read; 'hf auth login' with one that may write")
            )

    def require_card(self, page: str) -> None:
        """Let the Hub look at a card before anything goes up."""

        def step() -> list[str]:
            response = get_session().post(
                f"{self._api.endpoint}/api/validate-yaml",
                json={"content": page, "repoType": self.kind},
                headers=build_hf_headers(token=self._token),
            )
            if response.status_code != 400:
                hf_raise_for_status(response)
            return [str(error["message"]) for error in response.json()["errors"]]

        if errors := self.persist(step):
            raise PolicyError(f"the Hub refuses the header of the card: {'; '.join(errors)}")

    def create(self, *, private: bool, gated: bool) -> None:
        """Make sure that it is there, and as closed as it is to be.

        Terms to agree to are set only while it shows no version yet; later they are its owner's.

        Raises:
            PolicyError: If it is to be private, but is there and public.
        """

        def step() -> Any:
            try:
                return self._api.repo_info(self.name, repo_type=self.kind)
            except RepositoryNotFoundError:
                self._api.create_repo(
                    self.name, repo_type=self.kind, private=private or None, exist_ok=True
                )
                return self._api.repo_info(self.name, repo_type=self.kind)

        found = self.persist(step)
        if private and not found.private:
            raise PolicyError(
                f"{self.name} is public; make it private in its settings, or leave out --private"
            )
        is_new = {file.rfilename for file in found.siblings or ()} <= {".gitattributes"}
        if gated and is_new and not found.private and not found.gated:
            self.persist(
                lambda: self._api.update_repo_settings(self.name, repo_type=self.kind, gated="auto")
            )

    def refs(self) -> Refs:
        """Its branches and tags."""
        found = self.persist(lambda: self._api.list_repo_refs(self.name, repo_type=self.kind))
        return Refs(
            {ref.name: ref.target_commit for ref in found.branches},
            {ref.name: ref.target_commit for ref in found.tags},
        )

    def tree(self, commit: str) -> Tree:
        """Every file of a commit."""

        def step() -> Tree:
            listed = self._api.list_repo_tree(
                self.name, recursive=True, revision=commit, repo_type=self.kind
            )
            return {
                one.path: Stored(one.size, one.blob_id, one.lfs.sha256 if one.lfs else None)
                for one in listed
                if isinstance(one, RepoFile)
            }

        return self.persist(step)

    def read(self, commit: str, path: str, stored: Stored) -> bytes:
        """A small file of a commit, which must be what the Hub has listed."""

        def step() -> bytes:
            url = hf_hub_url(
                self.name, path, repo_type=self.kind, revision=commit, endpoint=self._api.endpoint
            )
            response = get_session().get(url, headers=build_hf_headers(token=self._token))
            hf_raise_for_status(response)
            item = Item.of(path, bytes(response.content))
            if not stored.is_same(item):
                raise ValueError(f"{path} is not what was asked for")
            return item.read()

        return self.persist(step)

    def title(self, commit: str) -> str:
        """What was said of a commit when it was made."""

        def step() -> str:
            found = self._api.list_repo_commits(self.name, repo_type=self.kind, revision=commit)
            return found[0].title if found else ""

        return self.persist(step)

    def add_branch(self, branch: str, commit: str) -> None:
        """Begin a branch at a commit; one that is there stays where it is."""
        self.persist(
            lambda: self._api.create_branch(
                self.name, branch=branch, revision=commit, repo_type=self.kind, exist_ok=True
            )
        )

    def remove_branch(self, branch: str) -> None:
        """Delete a branch, if it is there."""

        def step() -> None:
            if branch in self.refs().branches:
                self._api.delete_branch(self.name, branch=branch, repo_type=self.kind)

        self.persist(step)

    def add_tag(self, tag: str, commit: str) -> str:
        """Set a tag at a commit, if there is none of that name; where it points to now."""

        def step() -> str:
            if tag not in (tags := self.refs().tags):
                self._api.create_tag(self.name, tag=tag, revision=commit, repo_type=self.kind)
                return commit
            return tags[tag]

        return self.persist(step)

    def upload(self, item: Item, branch: str) -> None:
        """Send a large file, unless the Hub has it: what it lacks is sent, and checked by it."""
        addition = _addition(item)
        self.persist(
            lambda: self._api.preupload_lfs_files(
                self.name,
                [addition],
                repo_type=self.kind,
                revision=branch,
                num_threads=1,
                free_memory=False,
            )
        )

    def commit(
        self,
        branch: str,
        title: str,
        *,
        add: Iterable[Item] = (),
        copy: Sequence[str] = (),
        copied_from: str | None = None,
        delete: Iterable[str] = (),
        parent: str | None = None,
    ) -> str:
        """Commit to a branch, once; the new commit. To be taken as a step of ``persist``.

        Args:
            branch: The branch.
            title: Of the commit.
            add: Files that are sent, unless the Hub has them.
            copy: Large files that the Hub has, by their names in ``copied_from``.
            copied_from: A commit.
            delete: Names of files.
            parent: What the branch must point to; None: whatever it does.
        """
        operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [
            *(_addition(item) for item in add),
            *(CommitOperationCopy(path, path, src_revision=copied_from) for path in copy),
            *(CommitOperationDelete(path, is_folder=False) for path in delete),
        ]
        made = self._api.create_commit(
            self.name,
            operations,
            commit_message=title,
            repo_type=self.kind,
            revision=branch,
            parent_commit=parent,
            num_threads=1,
        )
        return str(made.oid)

    def _transient(self, err: Exception) -> TransientError:
        """What failed, if it may pass.

        Raises:
            Exception: What does not, as an error for the user where it is the Hub's.
        """
        cause: BaseException | None = err
        while cause is not None:  # uploads wrap what goes wrong in them
            if isinstance(cause, TransientError):
                return cause
            if isinstance(cause, HfHubHTTPError):
                return self._refused(cause)
            if isinstance(cause, OfflineModeIsEnabled):
                raise HubError(self._told("offline mode is on (HF_HUB_OFFLINE)")) from None
            if isinstance(cause, OSError) and cause.filename is not None:  # a file of ours
                raise cause
            cause = cause.__cause__
        if isinstance(err, _NONSENSE):
            return TransientError("it answered something else than it was asked")
        if isinstance(err, RuntimeError | OSError):  # uploads that do not go through our client
            return TransientError(f"the transfer broke off ({err.__cause__ or err})")
        raise err

    def _refused(self, err: HfHubHTTPError) -> TransientError:
        status = err.response.status_code
        said = err.server_message or err.response.reason_phrase
        if status in _IN_THE_WAY:
            return TransientError(f"it answered {status} ({said})", in_the_way=True)
        advice = {
            401: "; 'hf auth login' with a token that is valid",
            403: "; use a token that may write to it, or another repository",
        }.get(status, "")
        raise HubError(self._told(f"it answered {status} ({said}){advice}")) from None

    def _told(self, what: str) -> str:
        """A message, without the token, whatever the Hub has put into its answer."""
        return self._clean(
            f"{self.name}: the Hub does not go along: {what}\n"
            f"what went up is kept; go on with: {self._resume}"
        )

    def _clean(self, text: str) -> str:
        return text.replace(self._token, "<token>")


def _addition(item: Item) -> CommitOperationAdd:
    source = item.source if isinstance(item.source, bytes) else str(item.source)
    addition = CommitOperationAdd(item.path, source)
    addition.upload_info.sha256 = bytes.fromhex(item.sha256)  # known, so not computed anew
    return addition

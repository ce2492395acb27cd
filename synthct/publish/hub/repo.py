"""A repository on the Hub, with the requests that publishing needs."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    RepoFile,
    hf_hub_url,
)
from huggingface_hub.errors import (
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import (
    build_hf_headers,
    get_session,
    hf_raise_for_status,
)

from synthct.errors import ConflictError, HubError, PolicyError
from synthct.publish.hub.bundle import Item, Kind, Stored, Tree
from synthct.publish.hub.connection import Connection, RetryPolicy, TransientError


@dataclass(frozen=True)
class Refs:
    """Branches and tags of a repository, by name, with their commits."""

    branches: dict[str, str]
    tags: dict[str, str]


class BranchGoneError(ConflictError):
    """A branch is missing: another client has published the same and removed it."""

    def __init__(self, repo: str, branch: str) -> None:
        super().__init__(f"{repo}: somebody else removed branch {branch}; run the command again")


class HubRepo:
    """A repository on the Hub, with write access.

    Args:
        kind: Dataset or model.
        name: ``USER/NAME``.
        token: The user's token.
        resume: The command that continues after an error.
        retry_policy: Timeouts and pauses.
    """

    def __init__(
        self,
        kind: Kind,
        name: str,
        token: str,
        resume: str,
        retry_policy: RetryPolicy | None = None,
    ) -> None:
        self.kind, self.name = kind, name
        self.connection = Connection(name, token, resume, retry_policy or RetryPolicy())
        self._api = HfApi(token=token)
        self._headers = build_hf_headers(token=token)

    @property
    def url(self) -> str:
        """Its page."""
        return f"{self._api.endpoint}/{'datasets/' if self.kind == 'dataset' else ''}{self.name}"

    def require_writer(self) -> None:
        """Raise an error if the token is invalid or read-only."""
        user = self.connection.retry(self._api.whoami)
        if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
            what = "the token is read-only; run 'hf auth login' with one that may write"
            raise HubError(self.connection.message(what))

    def require_card(self, page: str) -> None:
        """Let the Hub validate a card's header before anything is uploaded."""

        def step() -> list[str]:
            response = get_session().post(
                f"{self._api.endpoint}/api/validate-yaml",
                json={"content": page, "repoType": self.kind},
                headers=self._headers,
            )
            if response.status_code != 400:
                hf_raise_for_status(response)
            return [str(error["message"]) for error in response.json()["errors"]]

        if errors := self.connection.retry(step):
            raise PolicyError(f"the Hub refuses the header of the card: {'; '.join(errors)}")

    def create(self, *, private: bool, gated: bool) -> None:
        """Create the repository if it does not exist.

        Terms to agree to (``gated``) are set only in a new repository; later they are its owner's.

        Raises:
            PolicyError: If it must be private, but is public.
        """

        def step() -> Any:
            try:
                return self._api.repo_info(self.name, repo_type=self.kind)
            except RepositoryNotFoundError:
                self._api.create_repo(
                    self.name, repo_type=self.kind, private=private or None, exist_ok=True
                )
                return self._api.repo_info(self.name, repo_type=self.kind)

        info = self.connection.retry(step)
        if private and not info.private:
            raise PolicyError(
                f"{self.name} is public; make it private in its settings, or leave out --private"
            )
        is_new = {file.rfilename for file in info.siblings or ()} <= {".gitattributes"}
        if gated and is_new and not info.private and not info.gated:
            self.connection.retry(
                lambda: self._api.update_repo_settings(self.name, repo_type=self.kind, gated="auto")
            )

    def refs(self) -> Refs:
        """Its branches and tags."""
        refs = self.connection.retry(
            lambda: self._api.list_repo_refs(self.name, repo_type=self.kind)
        )
        return Refs(
            {ref.name: ref.target_commit for ref in refs.branches},
            {ref.name: ref.target_commit for ref in refs.tags},
        )

    def head(self, branch: str) -> str:
        """The commit that a branch points to.

        Raises:
            BranchGoneError: If it is not there.
        """
        head = self.refs().branches.get(branch)
        if head is None:
            raise BranchGoneError(self.name, branch)
        return head

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

        return self.connection.retry(step)

    def read(self, commit: str, path: str, stored: Stored) -> bytes:
        """Content of a small file of a commit, checked against the Hub's listing."""

        def step() -> bytes:
            url = hf_hub_url(
                self.name, path, repo_type=self.kind, revision=commit, endpoint=self._api.endpoint
            )
            response = get_session().get(url, headers=self._headers)
            hf_raise_for_status(response)
            item = Item.of(path, bytes(response.content))
            if not stored.is_same(item):
                raise ValueError(f"{path} has another hash than listed")
            return item.read()

        return self.connection.retry(step)

    def title(self, commit: str) -> str:
        """The title of a commit."""

        def step() -> str:
            commits = self._api.list_repo_commits(self.name, repo_type=self.kind, revision=commit)
            return commits[0].title if commits else ""

        return self.connection.retry(step)

    def add_branch(self, branch: str, commit: str) -> None:
        """Create a branch at a commit, unless it exists."""
        self.connection.retry(
            lambda: self._api.create_branch(
                self.name, branch=branch, revision=commit, repo_type=self.kind, exist_ok=True
            )
        )

    def remove_branch(self, branch: str) -> None:
        """Delete a branch, if it exists."""

        def step() -> None:
            if branch in self.refs().branches:
                with suppress(RevisionNotFoundError):  # another client was faster
                    self._api.delete_branch(self.name, branch=branch, repo_type=self.kind)

        self.connection.retry(step)

    def add_tag(self, tag: str, commit: str) -> str:
        """Create a tag at a commit, unless it exists; returns the commit it points to."""

        def step() -> str:
            if tag not in (tags := self.refs().tags):
                self._api.create_tag(self.name, tag=tag, revision=commit, repo_type=self.kind)
                return commit
            return tags[tag]

        return self.connection.retry(step)

    def upload(self, item: Item, branch: str) -> None:
        """Upload a large file, unless the Hub has it.

        Raises:
            BranchGoneError: If the branch is not there.
        """
        addition = _addition(item)

        def step() -> None:
            try:
                self._api.preupload_lfs_files(
                    self.name,
                    [addition],
                    repo_type=self.kind,
                    revision=branch,
                    num_threads=1,
                    free_memory=False,
                )
            except RevisionNotFoundError:
                raise BranchGoneError(self.name, branch) from None

        self.connection.retry(step)

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
        """Commit to a branch, without retries; returns the new commit.

        Args:
            branch: Name of the branch.
            title: Title of the commit.
            add: Files to add.
            copy: Large files that the Hub has, by their names in ``copied_from``.
            copied_from: A commit.
            delete: Names of files to delete.
            parent: The commit that the branch must point to; None for any.

        Raises:
            BranchGoneError: If the branch is missing.
        """
        operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [
            *(_addition(item) for item in add),
            *(CommitOperationCopy(path, path, src_revision=copied_from) for path in copy),
            *(CommitOperationDelete(path, is_folder=False) for path in delete),
        ]
        try:
            with warnings.catch_warnings():
                # The index of training regions is a table, and belongs to its checkpoint.
                warnings.filterwarnings("ignore", "It seems that you are about to commit a data")
                made = self._api.create_commit(
                    self.name,
                    operations,
                    commit_message=title,
                    repo_type=self.kind,
                    revision=branch,
                    parent_commit=parent,
                    num_threads=1,
                )
        except RevisionNotFoundError:
            raise BranchGoneError(self.name, branch) from None
        except RemoteEntryNotFoundError:  # deleted since we looked
            raise TransientError("the branch changed meanwhile", in_the_way=True) from None
        return str(made.oid)


def _addition(item: Item) -> CommitOperationAdd:
    source = item.source if isinstance(item.source, bytes) else str(item.source)
    addition = CommitOperationAdd(item.path, source)
    addition.upload_info.sha256 = bytes.fromhex(item.sha256)  # known, so not computed anew
    return addition

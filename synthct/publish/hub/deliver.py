"""Atomic uploads to the Hub: a version is published completely or not at all.

All files go to a separate branch first, where the Hub's list of sizes and hashes is compared with
the local one. Then one commit on top of the initial main publishes the version, and a tag names it.
Every step checks the state of the repository first, so the same command continues an interrupted
upload, and does nothing for a complete one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Literal

from synthct.errors import ConflictError, HubError
from synthct.publish.hub.bundle import Bundle, Item, Tree
from synthct.publish.hub.published import PublishedVersion, is_later, published_at
from synthct.publish.hub.repo import BranchGoneError, HubRepo

logger = logging.getLogger(__name__)

Outcome = Literal["published", "there", "beside"]

#: Number of files per commit to the branch.
_BATCH = 50


@dataclass(frozen=True)
class UploadResult:
    """The result of publishing.

    Attributes:
        outcome: ``published``; ``there``: it was already published; ``beside``: under its tag
            only, since main has a later version.
        commit: The commit of the version.
        url: Its page.
    """

    outcome: Outcome
    commit: str
    url: str


def deliver(
    bundle: Bundle,
    repo: HubRepo,
    *,
    private: bool = False,
    uploaded: Callable[[int], object] = lambda _: None,
) -> UploadResult:
    """Publish a bundle.

    Args:
        bundle: The files of a version.
        repo: The repository; created if it does not exist.
        private: Whether it must be private.
        uploaded: Called with the number of bytes of each file that the Hub has.

    Raises:
        ConflictError: If the version exists with other content, or another client publishes.
        HubError: If the Hub refuses, or cannot be reached for minutes.
        PolicyError: If the repository is public and should be private, or the card is refused.
    """
    with repo.connection.open():
        delivering = _Delivering(bundle, repo, uploaded)
        try:
            outcome, commit = delivering.run(private)
        except BranchGoneError:  # another client published the same, and removed it
            outcome, commit = delivering.run(private)
        repo.remove_branch(delivering.branch)
    return UploadResult(outcome, commit, f"{repo.url}/tree/{bundle.version or commit}")


class _Delivering:
    """The upload of a bundle to a repository."""

    def __init__(self, bundle: Bundle, repo: HubRepo, uploaded: Callable[[int], object]) -> None:
        self.bundle, self.repo, self.uploaded = bundle, repo, uploaded
        self.branch = f"build/{bundle.content_id[:12]}"

    def run(self, private: bool) -> tuple[Outcome, str]:
        """Do the remaining steps; returns the outcome and the commit of the version."""
        bundle, repo = self.bundle, self.repo
        repo.require_writer()
        repo.require_card(bundle.page)
        repo.create(private=private, gated=bundle.gated is not None)
        refs = repo.refs()
        if bundle.version in refs.tags:
            self._require_same(refs.tags[bundle.version])
            return "there", refs.tags[bundle.version]
        main = refs.branches["main"]
        tree = repo.tree(main)
        if not bundle.missing(tree):
            return ("published" if bundle.version else "there"), self._tag(main)
        published = published_at(repo, main, tree)
        self._require_same_name(published, tree)
        if bundle.version is not None and published.version == bundle.version:
            self._require_same(main)
            return "published", self._tag(main)
        kept = tree.keys() - published.paths
        built = self._build(main, kept)
        versions = (*refs.tags, *([published.version] if published.version else ()))
        if bundle.version and any(is_later(version, bundle.version) for version in versions):
            return "beside", self._tag(built)
        return "published", self._tag(self._show(main, built, kept))

    def _build(self, main: str, kept: Set[str]) -> str:
        """Upload all files to the branch and check them; returns its commit.

        Args:
            main: The commit to start from.
            kept: Files that belong to no version, and stay.
        """
        repo, bundle = self.repo, self.bundle
        repo.add_branch(self.branch, main)
        missing = bundle.missing(repo.tree(repo.head(self.branch)))
        self.uploaded(bundle.size - sum(item.size for item in missing))
        for start in range(0, len(missing), _BATCH):
            batch = missing[start : start + _BATCH]
            for item in batch:
                if item.is_large:
                    repo.upload(item, self.branch)
                self.uploaded(item.size)
            self._to_branch(batch, kept)
        built, wrong = self._to_branch((), kept)
        if wrong:
            raise HubError(
                f"{repo.name}: the Hub lacks files that were sent ({', '.join(wrong[:5])}); check "
                f"its branch {self.branch} and its .gitignore; main is unchanged"
            )
        return built

    def _to_branch(self, add: Sequence[Item], kept: Set[str]) -> tuple[str, list[str]]:
        """Add files to the branch, and remove those of other versions.

        Other clients use this branch only for the same files.

        Returns:
            The branch's commit, and the files that are still missing or differ.
        """

        def step() -> tuple[str, list[str]]:
            head = self.repo.head(self.branch)
            tree = self.repo.tree(head)
            left = [item for item in self.bundle.missing(tree) if item in add]
            gone = sorted(tree.keys() - self.bundle.paths - kept)
            if left or gone:
                head = self.repo.commit(self.branch, self.bundle.title, add=left, delete=gone)
                tree = self.repo.tree(head)
            return head, [item.path for item in self.bundle.missing(tree)]

        return self.repo.connection.retry(step)

    def _show(self, main: str, built: str, kept: Set[str]) -> str:
        """Publish the version on main, which must be unchanged; returns the commit."""
        repo, bundle = self.repo, self.bundle
        built_tree = repo.tree(built)

        def step() -> str:
            head = repo.head("main")
            tree = repo.tree(head)
            left = bundle.missing(tree)
            if not left:  # the answer to the commit was lost, or another client did the same
                return head
            if head != main:
                raise ConflictError(
                    f"{repo.name}: somebody else changed main meanwhile, which now holds "
                    f"{published_at(repo, head, tree)}; check it, then publish again"
                )
            return repo.commit(
                "main",
                bundle.title,
                add=[item for item in left if built_tree[item.path].sha256 is None],
                copy=[i.path for i in left if built_tree[i.path].sha256 is not None],
                copied_from=built,
                delete=sorted(tree.keys() - bundle.paths - kept),
                parent=head,
            )

        commit = repo.connection.retry(step)
        if wrong := bundle.missing(repo.tree(commit)):
            raise HubError(
                f"{repo.name}: the Hub lacks {wrong[0].path}, which was sent; publish again"
            )
        return commit

    def _tag(self, commit: str) -> str:
        """Name a commit by the version, if it has one; where its tag points to."""
        if self.bundle.version is None:
            return commit
        tagged = self.repo.add_tag(self.bundle.version, commit)
        if tagged != commit:
            self._require_same(tagged)
        return tagged

    def _require_same(self, commit: str) -> None:
        """Raise an error if the published version has other content; versions never change."""
        ours, tree = self.bundle, self.repo.tree(commit)
        if not ours.missing(tree):
            return
        theirs = published_at(self.repo, commit, tree).content_id
        if theirs == ours.content_id and ours.kind == "dataset":
            logger.info("%s: it has the same samples already, in other files", self.repo.name)
            return
        what = f"content {theirs[:12]}" if theirs else "something else"
        also = ", with other texts beside the same weights" if theirs == ours.content_id else ""
        raise ConflictError(
            f"{self.repo.name}: version {ours.version} is {what}, yours is "
            f"{ours.content_id[:12]}{also}; versions never change, so give yours a higher one"
        )

    def _require_same_name(self, published: PublishedVersion, tree: Tree) -> None:
        """Raise an error if the repository holds another dataset or checkpoint."""
        ours, name = self.bundle, self.repo.name
        if published.name is not None and published.name != ours.name:
            raise ConflictError(
                f"{name} holds {published.name}, not {ours.name}; publish to another repository"
            )
        strange = sorted(path for path in tree.keys() - published.paths if path.startswith("data/"))
        if ours.kind == "dataset" and strange:
            raise ConflictError(
                f"{name} holds {strange[0]}, which belongs to no published version and would be "
                "read as part of this one; delete it, or publish to another repository"
            )

"""How a version gets onto the Hub: whole or not at all, whatever happens on the way.

All files go to a branch of their own first, in as many tries as it takes; there the Hub's list of
sizes and hashes is compared with ours. Then one commit, on top of what main was at the beginning,
makes the version visible, and a tag names it. Every step looks at what is there before it does
anything, so the same command goes on where another stopped, and does nothing where all is done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Literal

from synthct.errors import ConflictError, HubError
from synthct.publish.hub.parcel import Item, Parcel, Tree
from synthct.publish.hub.repo import BranchGoneError, HubRepo
from synthct.publish.hub.shown import Shown, is_later, shown_at

logger = logging.getLogger(__name__)

Outcome = Literal["published", "there", "beside"]

#: Files after which a commit to the branch secures them.
_BATCH = 50


@dataclass(frozen=True)
class Delivery:
    """How it ended.

    Attributes:
        outcome: ``published``; ``there``: it was already; ``beside``: under its tag only, since
            there is a later version.
        commit: The commit that holds it.
        url: Where it can be seen.
    """

    outcome: Outcome
    commit: str
    url: str


def deliver(
    parcel: Parcel,
    repo: HubRepo,
    *,
    private: bool = False,
    uploaded: Callable[[int], object] = lambda _: None,
) -> Delivery:
    """Publish a parcel.

    Args:
        parcel: What goes up.
        repo: Where to; made if it is not there.
        private: Whether it is to be private.
        uploaded: Told how many bytes more the Hub has.

    Raises:
        ConflictError: If the version is there with other content, or somebody else publishes.
        HubError: If the Hub refuses, or cannot be reached in minutes.
        PolicyError: If the repository is public and should be private, or the card is refused.
    """
    with repo.connection.open():
        delivering = _Delivering(parcel, repo, uploaded)
        try:
            outcome, commit = delivering.run(private)
        except BranchGoneError:  # removed by one who published the same, and was faster
            outcome, commit = delivering.run(private)
        repo.remove_branch(delivering.branch)
    return Delivery(outcome, commit, f"{repo.url}/tree/{parcel.version or commit}")


class _Delivering:
    """A parcel on its way to a repository."""

    def __init__(self, parcel: Parcel, repo: HubRepo, uploaded: Callable[[int], object]) -> None:
        self.parcel, self.repo, self.uploaded = parcel, repo, uploaded
        self.branch = f"build/{parcel.content_id[:12]}"

    def run(self, private: bool) -> tuple[Outcome, str]:
        """Do what is left to do; how it ended, and the commit that holds the version."""
        parcel, repo = self.parcel, self.repo
        repo.require_writer()
        repo.require_card(parcel.page)
        repo.create(private=private, gated=parcel.gated is not None)
        refs = repo.refs()
        if parcel.version in refs.tags:
            self._require_same(refs.tags[parcel.version])
            return "there", refs.tags[parcel.version]
        main = refs.branches["main"]
        tree = repo.tree(main)
        if not parcel.missing(tree):
            return ("published" if parcel.version else "there"), self._tag(main)
        shown = shown_at(repo, main, tree)
        self._require_room(shown, tree)
        if parcel.version is not None and shown.version == parcel.version:
            self._require_same(main)
            return "published", self._tag(main)
        kept = tree.keys() - shown.paths
        built = self._build(main, kept)
        versions = (*refs.tags, *([shown.version] if shown.version else ()))
        if parcel.version and any(is_later(version, parcel.version) for version in versions):
            return "beside", self._tag(built)
        return "published", self._tag(self._show(main, built, kept))

    def _build(self, main: str, kept: Set[str]) -> str:
        """Bring the whole version onto a branch; the commit there, when it is all that it must be.

        Args:
            main: The commit to begin at.
            kept: Files that do not belong to a version, and stay.
        """
        repo, parcel = self.repo, self.parcel
        repo.add_branch(self.branch, main)
        missing = parcel.missing(repo.tree(repo.head(self.branch)))
        self.uploaded(parcel.size - sum(item.size for item in missing))
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
                f"{repo.name}: the Hub does not hold what was sent ({', '.join(wrong[:5])}); look "
                f"at its branch {self.branch} and at its .gitignore; main is as it was"
            )
        return built

    def _to_branch(self, add: Sequence[Item], kept: Set[str]) -> tuple[str, list[str]]:
        """Add files to the branch, remove what belongs to other versions.

        Nobody else has this branch, or only one who brings the same files onto it.

        Returns:
            The branch's commit, and what is still wrong on it.
        """

        def step() -> tuple[str, list[str]]:
            head = self.repo.head(self.branch)
            tree = self.repo.tree(head)
            left = [item for item in self.parcel.missing(tree) if item in add]
            gone = sorted(tree.keys() - self.parcel.paths - kept)
            if left or gone:
                head = self.repo.commit(self.branch, self.parcel.title, add=left, delete=gone)
                tree = self.repo.tree(head)
            return head, [item.path for item in self.parcel.missing(tree)]

        return self.repo.connection.persist(step)

    def _show(self, main: str, built: str, kept: Set[str]) -> str:
        """Make the version visible on main, which must be as it was; the commit that does."""
        repo, parcel = self.repo, self.parcel
        here = repo.tree(built)

        def step() -> str:
            head = repo.head("main")
            tree = repo.tree(head)
            left = parcel.missing(tree)
            if not left:  # the answer to our commit was lost, or somebody did the same
                return head
            if head != main:
                raise ConflictError(
                    f"{repo.name}: somebody else changed main meanwhile, which shows "
                    f"{shown_at(repo, head, tree)} now; look at it, then publish again"
                )
            return repo.commit(
                "main",
                parcel.title,
                add=[item for item in left if here[item.path].sha256 is None],
                copy=[item.path for item in left if here[item.path].sha256 is not None],
                copied_from=built,
                delete=sorted(tree.keys() - parcel.paths - kept),
                parent=head,
            )

        commit = repo.connection.persist(step)
        if wrong := parcel.missing(repo.tree(commit)):
            raise HubError(f"{repo.name}: the Hub does not show what was sent ({wrong[0].path})")
        return commit

    def _tag(self, commit: str) -> str:
        """Name a commit by the version, if it has one; where its tag points to."""
        if self.parcel.version is None:
            return commit
        tagged = self.repo.add_tag(self.parcel.version, commit)
        if tagged != commit:
            self._require_same(tagged)
        return tagged

    def _require_same(self, commit: str) -> None:
        """Refuse if the version is there with other content; versions never change."""
        ours, tree = self.parcel, self.repo.tree(commit)
        if not ours.missing(tree):
            return
        theirs = shown_at(self.repo, commit, tree).content_id
        if theirs == ours.content_id and ours.kind == "dataset":
            logger.info("%s: the same samples are there, in other files", self.repo.name)
            return
        what = f"content {theirs[:12]}" if theirs else "something else"
        also = ", with other texts beside the same weights" if theirs == ours.content_id else ""
        raise ConflictError(
            f"{self.repo.name}: version {ours.version} is {what}, yours is "
            f"{ours.content_id[:12]}{also}; versions never change, so give yours a higher one"
        )

    def _require_room(self, shown: Shown, tree: Tree) -> None:
        """Refuse a repository that holds something else."""
        ours, name = self.parcel, self.repo.name
        if shown.name is not None and shown.name != ours.name:
            raise ConflictError(
                f"{name} holds {shown.name}, not {ours.name}; publish to another repository"
            )
        strange = sorted(path for path in tree.keys() - shown.paths if path.startswith("data/"))
        if ours.kind == "dataset" and strange:
            raise ConflictError(
                f"{name} holds {strange[0]}, which belongs to no published version and would be "
                "read as part of this one; delete it, or publish to another repository"
            )

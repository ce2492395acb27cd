"""``publish``: a dataset's version or a checkpoint, to the Hugging Face Hub."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synthct.cli.common import Console, Debug, Quiet, reporting
from synthct.errors import counted

if TYPE_CHECKING:
    from synthct.publish.hub.bundle import Bundle


def publish(
    path: Annotated[
        str,
        typer.Argument(
            help="The folder of a dataset's version or of a checkpoint, or package:NAME.",
            show_default=False,
        ),
    ],
    repo: Annotated[str, typer.Option(metavar="USER/NAME", help="The repository on the Hub.")],
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository private, if it is new.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and list the files; upload nothing.")
    ] = False,
    tag: Annotated[
        str | None, typer.Option(help="The version of a checkpoint, such as 1.0.0.")
    ] = None,
    card: Annotated[
        Path | None,
        typer.Option(help="The card of a checkpoint, in place of its folder's README.md."),
    ] = None,
    faces: Annotated[
        bool,
        typer.Option(
            "--faces",
            help="Publish though heads or faces are in the field: the scans are defaced, or you "
            "may show them.",
        ),
    ] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Publish a dataset or checkpoint to the Hugging Face Hub; run again to continue."""
    with reporting(debug, quiet=quiet) as console:
        from huggingface_hub import get_token

        from synthct.errors import HubError
        from synthct.publish.hub.deliver import deliver
        from synthct.publish.hub.gate import pack, require_repo_name
        from synthct.publish.hub.privacy import checked
        from synthct.publish.hub.repo import HubRepo

        require_repo_name(repo)
        token = get_token()
        if token is None and not dry_run:
            raise HubError("there is no Hub token; run 'hf auth login' with one that may write")
        privacy = checked(path, faces=faces)
        bundle = pack(path, tag=tag, card=card, secrets=[token] if token else [], privacy=privacy)
        _list(console, bundle, repo, private, privacy)
        if token is None or dry_run:
            console.result("nothing was uploaded (--dry-run)")
            return
        options = {"--repo": repo, "--tag": tag, "--card": card and str(card)}
        words = ["synthct", "publish", path]
        words += [word for word, given in (("--private", private), ("--faces", faces)) if given]
        words += [word for pair in options.items() if pair[1] for word in pair if word]
        hub_repo = HubRepo(bundle.kind, repo, token, shlex.join(words))

        from tqdm import tqdm

        hidden = None if console.progress else True
        with tqdm(total=bundle.size, unit="B", unit_scale=True, disable=hidden) as bar:
            done = deliver(bundle, hub_repo, private=private, uploaded=bar.update)
        console.result(f"{_OUTCOMES[done.outcome]}: {done.url}")
        console.result(f"revision {done.commit}")


_OUTCOMES = {
    "published": "published",
    "there": "is already published",
    "beside": "published under its tag; main stays at the later version",
}


def _list(console: Console, bundle: Bundle, repo: str, private: bool, privacy: str) -> None:
    """Print the files to upload."""
    where = f"{bundle.kind} {repo}{f', tag {bundle.version}' if bundle.version else ''}"
    console.say(f"{bundle.label} ({bundle.licence}) -> {where}")
    for item in bundle.items:
        console.say(f"  {item.size:>14,}  {item.path}")
    console.say(f"  {bundle.size:>14,}  bytes in {counted(len(bundle.items), 'file')}")
    if privacy:
        console.result(privacy)
    if bundle.gated and not private:
        console.result(f"readers of a new repository have to agree to terms first: {bundle.gated}")

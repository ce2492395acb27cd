"""``review``, ``reader-study``: what people say of a finished dataset."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synthct.cli.common import Console, Debug, Quiet, reporting

if TYPE_CHECKING:
    from synthct.publish.pages.server import Site

Port = Annotated[
    int, typer.Option(min=0, max=65535, help="Where to listen on 127.0.0.1.", show_default="any")
]


def review(
    dataset: Annotated[Path, typer.Argument(help="The folder of a version.", show_default=False)],
    table: Annotated[
        Path | None,
        typer.Option(help="The table of decisions.", show_default="DATASET.review.csv"),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(help="Write one HTML file that needs no server, and end."),
    ] = None,
    port: Port = 0,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Look at every sample in a browser; accept, reject and comment by keyboard.

    Decisions go to a table beside the version, which the recipe of the next version names:
    review: {table: out/name/1.0.0.review.csv}.
    """
    with reporting(debug, quiet=quiet) as console:
        from tqdm import tqdm

        from synthct.publish.review.page import site, write_page
        from synthct.publish.review.table import Reviewed

        reviewed = Reviewed(dataset, table)
        total = len(reviewed.places)
        if page is not None:
            with tqdm(
                total=total, unit="sample", disable=None if console.progress else True
            ) as bar:
                write_page(reviewed, page, advance=bar.update)
            console.result(page)
            return
        _serve(console, site(reviewed), port)
        counts = ", ".join(f"{n} {name}" for name, n in reviewed.counts().items())
        console.say(f"of {total} samples: {counts}")
        console.result(reviewed.table)


def _serve(console: Console, site: Site, port: int) -> None:
    """Serve a page until Ctrl-C."""
    from synthct.publish.pages.server import serving

    with serving(site, port) as address:
        console.result(address)
        console.say("open this address in a browser of this machine; Ctrl-C ends it")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return

"""``review``, ``reader-study``: what people say of a finished dataset."""

from __future__ import annotations

import html
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synthct.cli.common import (
    AsJson,
    CacheDir,
    Console,
    DatasetFolder,
    Debug,
    Quiet,
    Sources,
    reporting,
    roots_of,
)
from synthct.errors import counted

if TYPE_CHECKING:
    from synthct.publish.pages.server import Site

Port = Annotated[
    int, typer.Option(min=0, max=65535, help="Where to listen on 127.0.0.1.", show_default="any")
]


def review(
    dataset: DatasetFolder,
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
        total = len(reviewed.rows)
        if page is not None:
            with tqdm(
                total=total, unit="sample", disable=None if console.progress else True
            ) as bar:
                write_page(reviewed, page, advance=bar.update)
            console.result(page)
            return
        _serve(console, site(reviewed), port)
        counts = ", ".join(f"{n} {name}" for name, n in reviewed.counts().items())
        console.say(f"of {counted(total, 'sample')}: {counts}")
        console.result(reviewed.table)


def reader_study(
    dataset: DatasetFolder,
    reader: Annotated[str, typer.Option(help="Whose answers they are.")] = "reader",
    pairs: Annotated[
        int | None,
        typer.Option(min=2, help="Painted pictures, and as many real ones.", show_default="20"),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Chooses and mixes the pictures.", show_default="one that nobody knows"),
    ] = None,
    real: Annotated[
        Path | None,
        typer.Option(
            help="Another dataset, whose slices before painting are the real ones.",
            show_default="structures of its own sources",
        ),
    ] = None,
    files: Annotated[
        bool, typer.Option("--files", help="Only make the pictures and a table to fill in.")
    ] = False,
    answers: Annotated[
        Path | None, typer.Option(help="Take the answers from a filled-in table.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="The folder of the study.", show_default="DATASET.reader-study"),
    ] = None,
    source: Sources = None,
    cache_dir: CacheDir = None,
    port: Port = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find out whether readers can tell painted from real, in a browser or without one.

    Real and painted pictures are mixed once; every reader gives one answer to each, and may stop
    and go on. Real structures come from the dataset's own sources (--source).
    """
    with reporting(debug, quiet=quiet, as_json=as_json) as console:
        from tqdm import tqdm

        from synthct.storage.defaults import default_cache_dir
        from synthct.storage.files import beside
        from synthct.studies.readers.page import site
        from synthct.studies.readers.result import RESULT, result_markdown, write_result
        from synthct.studies.readers.study import PAIRS, open_study

        folder = output or beside(dataset, "reader-study")
        with tqdm(
            total=2 * (pairs or PAIRS), unit="picture", leave=False, disable=not console.progress
        ) as bar:
            study = open_study(
                dataset,
                folder,
                pairs=pairs,
                seed=seed,
                roots=roots_of(source),
                real=real,
                cache_dir=cache_dir or default_cache_dir(),
                advance=bar.update,
            )
        if files:
            console.result(folder)
            console.report(folder=folder, pictures=len(study.names))
            return
        if answers is not None:
            study.add_answers(reader, study.read_answers(answers))
        else:
            _serve(console, site(study, reader), port)
        result = write_result(study)
        console.say(html.unescape(result_markdown(result)))
        console.result(folder / RESULT)
        console.report(result=folder / RESULT, **result.plain())


def _serve(console: Console, site: Site, port: int) -> None:
    """Serve a page until Ctrl-C."""
    from synthct.publish.pages.server import serving

    with serving(site, port) as address:
        console.result(address)
        console.say("open this address in a browser of this machine; Ctrl-C ends it")
        try:
            wait_for_ever()
        except KeyboardInterrupt:
            return


def wait_for_ever() -> None:
    """Until a signal interrupts the process."""
    threading.Event().wait()

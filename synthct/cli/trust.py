"""``verify``, ``diff``, ``compose``: check, compare and complete datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthct.cli.common import (
    AsJson,
    CacheDir,
    DatasetFolder,
    Debug,
    Device,
    Quiet,
    Sources,
    reporting,
    roots_of,
)

#: Most ids that are listed of each group.
_LISTED = 12


def verify(
    folder: DatasetFolder,
    level: Annotated[
        int,
        typer.Option(
            min=0,
            max=3,
            help="0: bytes. 1: files, rows, splits, licence, documents. 2: masks, voxels and "
            "measures from the sources. 3: some samples painted again.",
        ),
    ] = 1,
    source: Sources = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder of the checkpoint, if the recipe names a folder.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="How many samples level 3 paints again.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the samples.")] = 0,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that draw masks.", show_default="by number of cores"),
    ] = None,
    device: Device = None,
    relabel: Annotated[
        str | None,
        typer.Option(metavar="COMMAND", help="Your program, if the recipe has a section relabel."),
    ] = None,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Check a dataset against its manifest and recipe; lists what is wrong, with exit code 8."""
    with reporting(debug, quiet=quiet, as_json=as_json) as console:
        from dataclasses import asdict

        from synthct.build.verify.run import Originals
        from synthct.build.verify.run import verify as run
        from synthct.errors import VerifyError
        from synthct.recipe.relabel import parse_command

        originals = Originals(
            sources=roots_of(source),
            checkpoint=checkpoint,
            cache_dir=cache_dir,
            workers=workers,
            device=device,
            samples=samples,
            seed=seed,
            relabel=None if relabel is None else parse_command(relabel),
            progress=console.progress,
        )
        report = run(folder, level=level, originals=originals)
        release = report.release
        console.say(f"{release.name} {release.label}" if release else f"{folder}")
        for number, line in enumerate(report.levels, start=1):
            failed = report.findings and number == len(report.levels)
            console.say(f"  {line}: {'FAILED' if failed else 'ok'}")
        console.report(
            folder=folder,
            ok=not report.findings,
            release=release and release.model_dump(mode="json"),
            checked=report.levels,
            findings=[asdict(finding) for finding in report.findings],
        )
        if report.findings:
            listed = "\n".join(f"  {finding}" for finding in report.findings)
            raise VerifyError(f"{folder} does not match its manifest or recipe\n{listed}")


def compose(
    folder: DatasetFolder,
    source: Sources = None,
    output: Annotated[
        Path, typer.Option(help="The whole dataset is written to OUTPUT/name/version.")
    ] = Path("out"),
    cache_dir: CacheDir = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Complete a patch-only release with your own copy of the scans."""
    with reporting(debug, quiet=quiet) as console:
        from synthct.build.compose import bytes_of
        from synthct.build.compose import compose as run

        whole = run(
            folder,
            output,
            sources=roots_of(source),
            cache_dir=cache_dir,
            progress=console.progress,
        )
        small, large = bytes_of(folder) / 1e6, bytes_of(whole) / 1e6
        console.result(whole)
        console.say(f"patch-only {small:.2f} MB, whole {large:.2f} MB ({small / large:.1%})")


def diff(
    old: Annotated[Path, typer.Argument(help="Folder of the earlier version.")],
    new: Annotated[Path, typer.Argument(help="Folder of the later version.")],
    all_ids: Annotated[bool, typer.Option("--all", help="List every sample.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """List samples that are new, gone or changed, and the version number this needs."""
    with reporting(debug, quiet=quiet, as_json=as_json) as console:
        from dataclasses import asdict

        from synthct.dataset.diff import compare
        from synthct.errors import ConflictError

        changes = compare(old, new)
        console.say(
            f"{changes.old.name} {changes.old.label} -> {changes.new.name} {changes.new.label}"
        )
        groups = {"new": changes.added, "gone": changes.gone, "changed": changes.changed}
        for title, ids in groups.items():
            console.say(f"  {title:<8}{len(ids)}")
            listed = ids if all_ids else ids[:_LISTED]
            for sample_id in listed:
                console.say(f"    {sample_id}")
            if len(ids) > len(listed):
                console.say(f"    and {len(ids) - len(listed)} more (--all lists them)")
        if changes.is_reordered:
            console.say("  in another order")
        if changes.licences is not None:
            console.say(f"  licence {changes.licences[0]} -> {changes.licences[1]}")
        console.say(f"  step    {changes.step}: {changes.least} at least")
        facts = asdict(changes)
        facts |= {name: getattr(changes, name).model_dump(mode="json") for name in ("old", "new")}
        facts |= {"least": changes.least, "problem": None}
        try:
            changes.require_step()
        except ConflictError as err:
            console.report(**facts | {"problem": str(err)})
            raise
        console.report(**facts)

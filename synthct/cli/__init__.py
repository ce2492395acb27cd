"""The command line: one file per group of commands, no logic, heavy imports inside functions."""

from collections.abc import Callable
from typing import Annotated

import typer

from synthct.cli import (
    build,
    data,
    downstream,
    evaluate,
    export,
    inpaint,
    machine,
    privacy,
    publish,
    readers,
    report,
    selftest,
    table,
    train,
    trust,
)
from synthct.version import __version__

app = typer.Typer(
    name="synthct",
    help="Build versioned datasets of CT scans in which diffusion models have painted.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)

#: The commands in the order in which a user meets them, with examples for their help.
COMMANDS: dict[Callable[..., None], tuple[str, ...]] = {
    data.init: ("init /data/mine --output mine.yaml",),
    data.check: ("check recipe.yaml", "check recipe.yaml --source hosts=/data/kits23/dataset"),
    build.build: ("build recipe.yaml --limit 8", "build recipe.yaml --num-processes 4"),
    report.report: ("report out/name/1.0.0",),
    readers.review: ("review out/name/1.0.0", "review out/name/1.0.0 --page review.html"),
    readers.reader_study: (
        "reader-study out/name/1.0.0 --reader jane",
        "reader-study out/name/1.0.0 --files",
        "reader-study out/name/1.0.0 --reader jane --answers answers.csv",
    ),
    trust.verify: ("verify out/name/1.0.0", "verify out/name/1.0.0 --level 2 --json"),
    evaluate.evaluate: (
        "evaluate out/name/1.0.0",
        "evaluate out/name/1.0.0 --arm copies=out/name-copies/1.0.0",
    ),
    downstream.downstream: ("downstream recipes/downstream/phantoms.yaml",),
    privacy.privacy: (
        "privacy out/name/1.0.0",
        "privacy out/name/1.0.0 --training train.yaml --source scans=/data/kits23/dataset",
        "privacy runs/name/checkpoint --training train.yaml",
    ),
    export.export: ("export out/name/1.0.0 --to nifti",),
    publish.publish: ("publish out/name/1.0.0 --repo USER/NAME --dry-run",),
    trust.diff: ("diff out/name/1.0.0 out/name/1.1.0",),
    trust.compose: ("compose out/name/1.0.0 --source hosts=/data/kits23/dataset",),
    train.train: ("train recipe.yaml --preset small",),
    train.adapt: ("adapt recipe.yaml", "adapt recipe.yaml --steps 200 --minutes 10"),
    table.table: (
        "table recipes/tables/thesis_phantoms.yaml --preset quick",
        "table recipe.yaml --check",
    ),
    inpaint.inpaint: ("inpaint ct.nii.gz mask.nii.gz --label tumor --output out.nii.gz",),
    data.phantom: ("phantom --output phantoms --patients 4",),
    data.schema: ("schema > recipe.schema.json",),
    machine.env: ("env", "env --json"),
}


def _print_version(is_given: bool) -> None:
    if is_given:
        typer.echo(f"synthct {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Build versioned datasets of CT scans in which diffusion models have painted."""


for _command, _examples in COMMANDS.items():
    _lines = [f"synthct {example}" for example in _examples]
    app.command(epilog="\n\n".join(["Examples:", *_lines]))(_command)
app.add_typer(machine.cache, name="cache")
app.add_typer(selftest.app, name="selftest")

"""``env`` and ``cache``: this machine, and what is kept on it between runs."""

from __future__ import annotations

from typing import Annotated

import typer

from synthct.cli.common import AsJson, CacheDir, Debug, Quiet, reporting

cache = typer.Typer(
    help="The cache: what was learned of sources and scans, so that no run does it again.",
    no_args_is_help=True,
)


def env(cache_dir: CacheDir = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Show versions, devices and the cache: what a report of a problem needs."""
    with reporting(debug, as_json=as_json) as console:
        from synthct.processes.surroundings import packages, surroundings
        from synthct.storage.cache import cache_sizes
        from synthct.storage.defaults import default_cache_dir

        folder = cache_dir or default_cache_dir()
        facts = surroundings()
        size = sum(cache_sizes(folder).values())
        for name, value in facts.items():
            console.say(f"{name:<10}{', '.join(value) if isinstance(value, list) else value}")
        console.say(f"{'cache':<10}{folder}, {size:,} bytes")
        console.say("packages")
        for name, number in packages().items():
            console.say(f"  {name:<34}{number or 'not installed'}")
        console.report(**facts, cache={"folder": folder, "bytes": size}, packages=packages())


@cache.command(epilog="Example: synthct cache size")
def size(cache_dir: CacheDir = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Show where the cache is and how large each part of it is."""
    with reporting(debug, as_json=as_json) as console:
        from synthct.storage.cache import cache_sizes
        from synthct.storage.defaults import default_cache_dir

        folder = cache_dir or default_cache_dir()
        sizes = cache_sizes(folder)
        console.say(f"{folder}")
        for name, number in sizes.items():
            console.say(f"  {number:>16,}  {name}")
        console.say(f"  {sum(sizes.values()):>16,}  bytes in all")
        console.report(folder=folder, bytes=sum(sizes.values()), parts=sizes)


@cache.command(epilog="Example: synthct cache clear --part patches")
def clear(
    part: Annotated[
        list[str] | None,
        typer.Option(help="Only this part; may be repeated.", show_default="all of it"),
    ] = None,
    cache_dir: CacheDir = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Delete what is cached; datasets, checkpoints and your scans are not in it."""
    with reporting(debug, quiet=quiet) as console:
        from synthct.storage.cache import clear_cache
        from synthct.storage.defaults import default_cache_dir

        folder = cache_dir or default_cache_dir()
        freed = clear_cache(folder, part)
        console.say(f"{folder}: {freed:,} bytes deleted")

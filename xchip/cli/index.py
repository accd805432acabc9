"""``xchip index``: index items from files or a search, on this machine or on a cluster."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, cast

import click

from xchip.cli.items import ItemSource
from xchip.cli.options import (
    FRACTION,
    ChipSizeType,
    Options,
    archive_location,
    archive_of,
    chained,
    check_writable,
    file_access,
    storage_of,
)
from xchip.cli.running import cluster_of, conclude, pick, resumable, share_of, share_options, single_executor, worker_options
from xchip.cli.settings import parameter_of

if TYPE_CHECKING:
    from xchip.io.storage import StorageOptions

grid_options = chained(
    click.option("--size", default="256", show_default=True, type=ChipSizeType(), help="Pixels per chip: 256, or HEIGHTxWIDTH."),
    click.option("--stride", type=ChipSizeType(), help="Pixels from one chip to the next.  [default: --size]"),
    click.option(
        "--edge", type=click.Choice(["drop", "pad", "shift", "partial"]), default="drop", show_default=True,
        help="Chips at the border: leave them out, pad them, shift them inside, or cut them.",
    ),
    click.option(
        "--anchor", type=click.Choice(["origin", "crs"]), default="origin", show_default=True,
        help="Start chips at the corner of the scene, or on cells that all scenes of a CRS share.",
    ),
    click.option("--sensor", help="Name of the sensor, for items that do not name it."),
    click.option("--quality", help="Name of the quality band.  [default: that of the sensor]"),
)  # fmt: skip

limit_options = chained(
    *(
        click.option(f"--max-{name}", type=FRACTION, help=f"Keep chips with at most this fraction of {what}.")
        for name, what in (
            ("nodata", "nodata"), ("cloud", "cloud"), ("shadow", "shadow"), ("snow", "snow"), ("water", "water"),
            ("defective", "defective pixels"),
        )
    ),
    click.option("--min-clear", type=FRACTION, help="Keep chips with at least this fraction of clear pixels."),
)  # fmt: skip

item_options = chained(
    click.option(
        "--items-file", "lists", multiple=True, metavar="FILE", help="Text file with one ITEM per line; - is the standard input.",
    ),
    click.option("--api", metavar="URL", help="Search this STAC API for items."),
    click.option("--collection", "collections", multiple=True, metavar="ID", help="Collection to search; repeatable."),
    click.option("--bbox", metavar="W,S,E,N", help="Area in degrees; W > E crosses the antimeridian."),
    click.option("--intersects", metavar="FILE", type=click.Path(exists=True, dir_okay=False), help="GeoJSON file of an area."),
    click.option("--datetime", metavar="WHEN", help="2024, 2024-03-05, 2024-01/2024-03, or 2024-03-05T10:00:00Z/.."),
    click.option("--query", multiple=True, help="Condition, such as 'eo:cloud_cover<20', with = != < <= > >=; repeatable."),
    click.option("--sortby", help="Property to sort by: eo:cloud_cover, or -eo:cloud_cover for descending order."),
    click.option("--max-items", type=click.IntRange(1), help="Maximum number of items."),
    click.option("--limit", type=click.IntRange(1, 10_000), help="Items per page of the API."),
    share_options,
)  # fmt: skip

access_options = chained(
    file_access,
    click.option("--requester-pays", is_flag=True, help="Pay the costs of reading from requester-pays buckets."),
    click.option("--sign", type=click.Choice(["planetary-computer"]), help="Sign the URLs of files."),
    archive_location,
)

run_options = chained(
    worker_options,
    click.option(
        "--resume/--no-resume", default=True, show_default=True, help="Resume an earlier run, or stop if the archive exists.",
    ),
    click.option(
        "--retry-failed/--no-retry-failed", default=True, show_default=True, help="Retry items that failed in an earlier run.",
    ),
    click.option("--dry-run", is_flag=True, help="Estimate the work; read only the items, and write nothing."),
)  # fmt: skip


@click.command()
@click.argument("items", nargs=-1, metavar="[ITEM]...")
@click.option("-o", "--output", help="Folder or URL of the archive, or a *.parquet file.")
@item_options
@grid_options
@limit_options
@run_options
@access_options
@click.pass_context
def index(ctx: click.Context, /, output: str | None, **options: Any) -> None:
    """Index STAC items into an archive: the JSON and a GeoParquet file of chips for each item.

    ITEM is the path or URL of an item, an ItemCollection, newline-delimited JSON, or a stac-geoparquet file. Re-running
    resumes: finished items are skipped. With -o FILE.parquet, all chips go into one file, which appears when it is complete.
    """
    source = _source(ctx, options)
    recipe = pick(options, "size stride edge anchor sensor quality max_nodata max_cloud max_shadow max_snow max_water")
    recipe |= pick(options, "max_defective min_clear")
    if options["dry_run"]:
        _explain(source, recipe, options)
        return
    if output is None:
        raise click.UsageError("Missing option '-o' / '--output', the location of the archive.")
    options = single_executor(ctx, options)
    if output.endswith(".parquet"):
        _write_file(ctx, source, output, recipe, options)
    else:
        _build(ctx, source, output, recipe, options)


def _source(ctx: click.Context, options: Options) -> ItemSource:
    search = pick(options, "collections bbox intersects datetime query sortby max_items limit")
    given = [name for name, value in search.items() if value]
    if given and options["api"] is None:
        option = {"collections": "collection"}.get(given[0], given[0]).replace("_", "-")
        raise click.UsageError(f"--{option} is for a search; name an API with --api.")
    if not (options["items"] or options["lists"] or options["api"]):
        raise click.UsageError("No items: give ITEM..., --items-file or --api.")
    if options["intersects"]:
        with open(options["intersects"], encoding="utf-8") as file:
            search["intersects"] = file.read()
    query = {name: value for name, value in search.items() if value}
    return ItemSource(options["items"], options["lists"], options["api"], query, share_of(ctx, options))


def _explain(source: ItemSource, recipe: Options, options: Options) -> None:
    from xchip.indexing.explain.items import explain_items

    threads = 1 if options["workers"] else options["threads"]
    click.echo(str(explain_items(source.items(), **recipe, threads=threads)))


_ARCHIVE_OPTIONS = (
    *("resume", "retry_failed", "attempts", "part", "array", "endpoint", "region", "profile", "unsigned", "requester_pays"),
    *("sign", "archive_endpoint", "archive_region", "archive_profile"),
)


def _write_file(ctx: click.Context, source: ItemSource, output: str, recipe: Options, options: Options) -> None:
    """Write the chips of all items to one file, by one computation."""
    for name in _ARCHIVE_OPTIONS:
        if ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            option = parameter_of(ctx, name).opts[0]
            raise click.UsageError(f"{option} is for archives, and {output} is one file; use a folder, and merge it later.")
    from xchip.core.limits import IndexOptions
    from xchip.indexing.files.write import write_index
    from xchip.indexing.from_items import index_source, spec_of
    from xchip.io.progress import Progress, SceneTasks

    check_writable(None, None, output)
    # Not index_items: its lazy frame takes half a second to import, and is not needed here.
    size, sensor, quality = (recipe.pop(name) for name in ("size", "sensor", "quality"))
    lazy = index_source(source.items(), spec_of("index_items", size, sensor, quality, cast(IndexOptions, recipe)))
    with cluster_of(options) as client:
        if client is not None:
            path = write_index(lazy, output)
        else:
            import dask

            with (
                dask.config.set(num_workers=options["threads"]) if options["threads"] else nullcontext(),
                Progress(len(lazy.parts), "indexed", stream=sys.stderr) as progress,
                SceneTasks(progress),
            ):
                path = write_index(lazy, output)
    click.echo(f"{_rows(path):,} chips of {len(lazy.parts):,} scenes in {path}")


def _rows(path: str) -> int:
    """Return the number of rows of a file from its footer."""
    import fsspec
    import pyarrow.parquet as pq

    with fsspec.open(path, "rb") as file:
        return int(pq.ParquetFile(file).metadata.num_rows)


def _check_no_archive(output: str, storage: StorageOptions) -> None:
    from xchip.indexing.archive.ledger import JOB
    from xchip.io.store import Store

    if Store(output, storage).exists(JOB):
        raise ValueError(f"{output} is already an archive; use another -o, or leave out --no-resume to resume it")


def _build(ctx: click.Context, source: ItemSource, output: str, recipe: Options, options: Options) -> None:
    from xchip.indexing.archive.build import build_index

    storage = archive_of(options)
    pixels = storage_of(**pick(options, "endpoint region profile unsigned requester_pays"), signer=options["sign"])
    if not options["resume"]:
        _check_no_archive(output, storage)
    items = source.items()
    if source.part is not None:
        first = list(islice(items, 1))
        if not first:
            click.echo("part {} of {} has no items: there is nothing to do".format(*source.part))
            return
        items = chain(first, items)
    with resumable(ctx, options, output) as run_options:
        report = build_index(
            items,
            output,
            recipe.pop("size"),
            **recipe,
            storage=storage,
            pixels=pixels,
            **run_options,
        )
    conclude(ctx, report, f"To list the failures: xchip status {output} --failures")

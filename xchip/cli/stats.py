"""``xchip stats``: compute statistics of bands over the chips of an index, or over cubes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import click

from xchip.cli.index import access_options
from xchip.cli.options import Options, archive_of, check_writable, show_progress, storage_of
from xchip.cli.rows import (
    box_of,
    condition_options,
    filters_of,
    harmonize_option,
    items_root_of,
    names_of,
    platform_filter,
    require_items_root,
    sensor_option,
    table_options,
)
from xchip.cli.running import cluster_of, executor_options, pick, single_executor
from xchip.cli.settings import also_read, from_command_line, missing, parameter_of, preferred, url_of_bucket, variables_of

if TYPE_CHECKING:
    from xchip.chips.train.stats_values import BandStats
    from xchip.io.storage import StorageOptions

_INDEX_OPTIONS = (
    *("sensor", "harmonize", "bbox", "filters", "skip_nodata", "sample", "seed", "data_bucket", "scheduler", "workers"),
)


@also_read(
    index="STACCHIP_INDEXPATH",
    chip_bucket="STACCHIP_CHIP_BUCKET",
    data_bucket="STACCHIP_DATA_BUCKET",
    platform="STACCHIP_PLATFORM",
    max_cubes="STACCHIP_MAX_CUBES",
    threads="STACCHIP_POOL_SIZE",
)
@click.command()
@click.argument("index", required=False)
@click.option("-o", "--output", callback=check_writable, help="Path or URL of a *.json or *.yaml file.  [default: print YAML]")
@click.option("--cubes", metavar="FOLDER", help="Folder or URL of cubes that `xchip prechip` wrote, instead of INDEX.")
@click.option("--chip-bucket", metavar="BUCKET", help="Bucket of the cubes; the same as --cubes s3://BUCKET.")
@click.option(
    "--max-cubes",
    type=click.IntRange(1),
    metavar="N",
    help="Use the first N cubes of each platform; for an INDEX, N x 128 random chips of each sensor.",
)
@table_options
@click.option("--assets", metavar="NAME,...", help="Names of bands.  [default: Clay's bands, else all but the quality bands]")
@sensor_option
@harmonize_option
@condition_options
@click.option("--skip-nodata", is_flag=True, help="Use chips with nodata pixels too, but leave out those pixels.")
@click.option("--sample", type=click.IntRange(1), metavar="N", help="Use N random chips of each sensor.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed for --sample.")
@executor_options
@access_options
@click.pass_context
def stats(ctx: click.Context, /, index: str | None, output: str | None, **options: Any) -> None:
    """Compute mean, standard deviation and range of each band over the chips without nodata of an index, or over cubes.

    INDEX is an archive or an index, including stacchip's; XCHIP_STATS_INDEX or STACCHIP_INDEXPATH can set it too.
    For cubes, all pixels count that are not nodata. The file has the keys of the Clay model's metadata.yaml. The command line
    takes precedence over XCHIP_STATS_* variables, and these over STACCHIP_* variables; if STACCHIP_* variables name both cubes
    and an index, the cubes are used, as in stacchip.
    """
    from xchip.chips.train.stats_values import is_json

    if output is not None:
        is_json(output)  # raises for a wrong name now, rather than after the work
    source = preferred(ctx, "cubes", "chip_bucket", "index")
    if source is None:
        names = (variable for name in ("index", "cubes", "chip_bucket") for variable in variables_of(ctx, name))
        raise missing("INDEX", "Archive or index of the chips; or --cubes.", *names, given="s3://bucket/archive")
    archive = archive_of(options)
    options = single_executor(ctx, options)
    if source == "index":
        statistics = _index_stats(ctx, str(index), archive, options)
    else:
        folder = options[source] if source == "cubes" else url_of_bucket(options[source])
        statistics = _cube_stats(ctx, folder, archive, options)
    if output is None:
        click.echo(statistics.to_yaml(), nl=False)
        return
    click.echo(statistics)
    click.echo(f"written to {statistics.write(output, storage=archive)}")


def _index_stats(ctx: click.Context, index: str, archive: StorageOptions, options: Options) -> BandStats:
    from xchip.chips.train.band_stats import band_stats
    from xchip.export.cubes import Cubes
    from xchip.indexing.stacchip import read_index

    conditions = [*(filters_of(options["filters"]) or []), *platform_filter(options["platform"])]
    rows = read_index(index, box_of(options["bbox"]), conditions or None, storage=archive, items_root=items_root_of(options))
    require_items_root(ctx, rows)
    if options["sample"] is None and options["max_cubes"] is not None:
        options = options | {"sample": options["max_cubes"] * Cubes().size}
    with cluster_of(options) as client:
        return band_stats(
            rows,
            names_of(options["assets"]),
            storage=archive,
            pixels=storage_of(**pick(options, "endpoint region profile unsigned requester_pays"), signer=options["sign"]),
            client=client,
            progress=_progress("chips"),
            **pick(options, "sensor harmonize skip_nodata sample seed threads"),
        )


def _cube_stats(ctx: click.Context, folder: str, archive: StorageOptions, options: Options) -> BandStats:
    from xchip.export.cube_stats import cube_stats

    for name in _INDEX_OPTIONS:
        if from_command_line(ctx, name):
            raise click.UsageError(f"{parameter_of(ctx, name).opts[0]} is for an INDEX; cubes are read whole.")
    return cube_stats(
        folder,
        options["platform"],
        names_of(options["assets"]),
        storage=archive,
        progress=_progress("cubes"),
        **pick(options, "max_cubes threads"),
    )


def _progress(unit: str) -> Callable[[int, int], object] | Literal[False]:
    return partial(show_progress, unit) if sys.stderr.isatty() else False

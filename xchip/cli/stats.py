"""``xchip stats``: statistics of bands over the chips of an index, or over cubes."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from xchip.cli.index import access_options
from xchip.cli.options import archive_of, show_progress, storage_of, check_writable
from xchip.cli.rows import box_of, filters_of, items_root_of, names_of, platform_filter, table_options, require_items_root
from xchip.cli.running import cluster_of, single_executor, pick
from xchip.cli.settings import also_read, from_command_line, missing, preferred, url_of_bucket

if TYPE_CHECKING:
    from xchip.chips.train.stats_values import BandStats
    from xchip.io.storage import StorageOptions

_FOR_AN_INDEX = ("sensor", "harmonize", "bbox", "filters", "skip_nodata", "sample", "seed", "data_bucket", "scheduler", "workers")


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
@click.option(
    "-o", "--output", callback=check_writable, help="File *.json or *.yaml, a path or a URL.  [default: YAML to the standard output]"
)
@click.option("--cubes", metavar="FOLDER", help="Folder or URL of cubes, as `xchip prechip` writes them, in place of INDEX.")
@click.option("--chip-bucket", metavar="BUCKET", help="Bucket of the cubes: the same as --cubes s3://BUCKET.")
@click.option(
    "--max-cubes",
    type=click.IntRange(1),
    metavar="N",
    help="Take N cubes of each platform, the first; or of an INDEX as many chips at random, 128 a cube.",
)
@table_options
@click.option("--assets", metavar="NAME,...", help="Bands, by name.  [default: Clay's, else all but the quality bands]")
@click.option("--sensor", help="Name of the product, where the index does not tell it.")
@click.option("--harmonize", is_flag=True, help="Undo the offset of Sentinel-2's processing baseline 04.00, item by item.")
@click.option("--bbox", metavar="W,S,E,N", help="Degrees; W above E crosses the antimeridian.")
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="CONDITION",
    help="Such as 'cloud_fraction<=0.1', with = != < <= > >=, of any column; may be repeated.",
)
@click.option("--skip-nodata", is_flag=True, help="Take chips with nodata pixels too, and leave out these pixels.")
@click.option("--sample", type=click.IntRange(1), metavar="N", help="Take N chips of each sensor, at random.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Which chips --sample takes.")
@click.option("--scheduler", metavar="ADDRESS", help="Work on the Dask cluster of this scheduler.")
@click.option("--workers", type=click.IntRange(1), help="Work in so many processes of this machine.")
@click.option("--threads", type=click.IntRange(1), help="Work on so many threads.  [default: one a processor]")
@access_options
@click.pass_context
def stats(ctx: click.Context, /, index: str | None, output: str | None, **options: Any) -> None:
    """Mean, standard deviation and range of each band over the chips of an index that have no nodata pixels, or over cubes.

    INDEX is an archive or an index, also one of stacchip's; it may come from XCHIP_STATS_INDEX or STACCHIP_INDEXPATH. Of cubes
    all pixels count that are not nodata. The file has the keys of the Clay model's metadata.yaml. What the command line says
    goes before XCHIP_STATS_*, and that before STACCHIP_*, where cubes go before an index, as stacchip has it.
    """
    from xchip.chips.train.stats_values import is_json

    if output is not None:
        is_json(output)  # a wrong name is told now, and not when the work is done
    source = preferred(ctx, "cubes", "chip_bucket", "index")
    if source is None:
        places = (name for one in ("index", "cubes", "chip_bucket") for name in variables_of(ctx, one))
        raise missing("INDEX", "Archive or index of the chips; or --cubes.", *places, given="s3://bucket/archive")
    archive = archive_of(options)
    options = single_executor(ctx, options)
    if source == "index":
        found = _of_index(ctx, str(index), archive, options)
    else:
        found = _of_cubes(ctx, options[source] if source == "cubes" else url_of_bucket(options[source]), archive, options)
    if output is None:
        click.echo(found.to_yaml(), nl=False)
        return
    click.echo(found)
    click.echo(f"written to {found.write(output, storage=archive)}")


def _of_index(ctx: click.Context, index: str, archive: StorageOptions, options: Options) -> BandStats:
    from xchip.chips.train.band_stats import band_stats
    from xchip.export.cubes import Cubes
    from xchip.indexing.opening.read import read_index

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


def _of_cubes(ctx: click.Context, folder: str, archive: StorageOptions, options: Options) -> BandStats:
    from xchip.export.cube_stats import cube_stats

    for name in _FOR_AN_INDEX:
        if from_command_line(ctx, name):
            option = next(parameter.opts[0] for parameter in ctx.command.params if parameter.name == name)
            raise click.UsageError(f"{option} is for an INDEX; cubes have the chips that were put into them.")
    return cube_stats(
        folder,
        options["platform"],
        names_of(options["assets"]),
        storage=archive,
        progress=_progress("cubes"),
        **pick(options, "max_cubes threads"),
    )


def _progress(what: str) -> Any:
    return partial(show_progress, what) if sys.stderr.isatty() else False

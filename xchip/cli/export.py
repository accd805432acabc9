"""``xchip prechip`` and ``xchip export``: the chips of an index as files."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from xchip.cli.index import access_options, limit_options
from xchip.cli.options import BUCKET_OPTIONS, archive_of, chained, storage_of
from xchip.cli.rows import box_of, filters_of, items_root_of, names_of, platform_filter, table_options, require_items_root
from xchip.cli.running import conclude, single_executor, share_of, share_options, resumable, pick, worker_options
from xchip.cli.settings import ARRAY_INDEX, also_read, missing, output_of, preferred

if TYPE_CHECKING:
    from xchip.export.job import Format

CUBES_PER_JOB = 10
"""As stacchip has it."""

chip_options = chained(
    click.option("--assets", metavar="NAME,...", help="Bands, by name.  [default: Clay's for cubes, else those of the product]"),
    click.option("--sensor", help="Name of the product, where the index does not tell it."),
    click.option("--bbox", metavar="W,S,E,N", help="Degrees; W above E crosses the antimeridian."),
    click.option(
        "--filter", "filters", multiple=True, metavar="CONDITION",
        help="Such as 'datetime>=2024-06-01', with = != < <= > >=, of any column; may be repeated.",
    ),
    limit_options,
    click.option("--seed", type=int, default=0, show_default=True, help="Decides the order of shuffled chips."),
    click.option("--buffer", type=click.IntRange(1), default=512, show_default=True, help="Chips read and mixed at once."),
    click.option("--pad", is_flag=True, help="Allow chips of several sizes: all are padded to the largest."),
    click.option("--harmonize", is_flag=True, help="Undo the offset of Sentinel-2's processing baseline 04.00, item by item."),
    share_options,
    worker_options,
    click.option(
        "--retry-failed/--no-retry-failed", default=True, show_default=True, help="Try chips again that failed earlier.",
    ),
    access_options,
    click.option("--output-endpoint", metavar="URL", help="S3 server of the output.  [default: that of the archive]"),
    click.option("--output-region", help="Its region.  [default: that of the archive]"),
    click.option("--output-profile", help="Its profile in the AWS configuration.  [default: that of the archive]"),
)  # fmt: skip


@also_read(
    index="STACCHIP_INDEXPATH",
    chip_bucket="STACCHIP_CHIP_BUCKET",
    data_bucket="STACCHIP_DATA_BUCKET",
    platform="STACCHIP_PLATFORM",
    job=ARRAY_INDEX,
    cubes_per_job="STACCHIP_CUBES_PER_JOB",
    threads="STACCHIP_POOL_SIZE",
    max_nodata="STACCHIP_MAX_NODATA",
)
@click.command()
@click.argument("index", required=False)
@click.option("-o", "--output", show_envvar=True, help="Folder or URL for the cubes.")
@click.option("--chip-bucket", metavar="BUCKET", help="Bucket for the cubes: the same as --output s3://BUCKET.")
@table_options
@click.option("--cube-size", type=click.IntRange(1), default=128, show_default=True, help="Chips in a cube.")
@click.option(
    "--dtype", type=click.Choice(["float32", "stored"]), default="float32", show_default=True, help="Data type of pixels."
)
@click.option(
    "--job",
    type=click.IntRange(0),
    metavar="N",
    help="Make only the cubes of this job, counted from 0: number N x CUBES_PER_JOB and those that follow.",
)
@click.option(
    "--cubes-per-job", type=click.IntRange(1), metavar="CUBES_PER_JOB", help=f"Cubes of a job.  [default: {CUBES_PER_JOB}]"
)
@chip_options
@click.pass_context
def prechip(ctx: click.Context, /, index: str | None, cube_size: int, dtype: str, **options: Any) -> None:
    """Write shuffled npz cubes of chips, as the Clay model is trained from.

    INDEX is an archive or an index, also one of stacchip's; it may come from XCHIP_PRECHIP_INDEX or STACCHIP_INDEXPATH. Cubes
    that are there are skipped, so to run again is to go on. Chips that can't be read are listed in OUTPUT/failed, and the exit
    status is then 3. What the command line says goes before XCHIP_PRECHIP_*, and that before STACCHIP_*.
    """  # fmt: skip
    from xchip.export.cubes import Cubes
    from xchip.indexing.opening.read import read_index

    if index is None:
        raise missing("INDEX", "Archive or index of the chips.", *variables_of(ctx, "index"), given="s3://bucket/archive")
    output = output_of(ctx, options, "output", "chip_bucket", "Folder or URL for the cubes.")
    job = _job(ctx, options)
    chosen = [*(filters_of(options["filters"]) or []), *platform_filter(options["platform"])]
    rows = read_index(
        index, box_of(options["bbox"]), chosen or None, storage=archive_of(options), items_root=items_root_of(options)
    )
    require_items_root(ctx, rows)
    options |= {"output": output, "bbox": None, "filters": (), "job": job}
    _export(ctx, rows, Cubes(cube_size, None if dtype == "stored" else dtype), None, options)


def _job(ctx: click.Context, options: Options) -> tuple[int, int] | None:
    """(number, cubes) of the job to do; None: all cubes, or those of a part. Batch tells all programs which child they are in,
    so a part that was asked for goes before it.
    """
    if preferred(ctx, "part", "array", "job") == "job":
        return options["job"], options["cubes_per_job"] or CUBES_PER_JOB
    if options["job"] is None and options["cubes_per_job"] is not None:
        raise missing("--job 0", "Which job's cubes to make, counted from 0.", *variables_of(ctx, "job"))
    return None


@click.command()
@click.argument("index")
@click.option("-o", "--output", required=True, help="Folder or URL for the files.")
@click.option("--format", "kind", type=click.Choice(["npz", "zarr", "tar", "tif"]), required=True, help="Kind of the files.")
@click.option("--size", type=click.IntRange(1), help="Chips in a cube or tar shard, or in a chunk of a Zarr store.")
@click.option("--shard", type=click.IntRange(1), help="Chips in a shard of a Zarr store, a multiple of --size.")
@click.option("--shuffle/--no-shuffle", default=None, help="Random order.  [default: for npz and tar]")
@chip_options
@click.pass_context
def export(
    ctx: click.Context, /, index: str, kind: str, size: int | None, shard: int | None, shuffle: bool | None, **options: Any
) -> None:
    """Write the chips of an index as files: npz cubes, one Zarr store, tar shards for webdataset, or GeoTIFFs.

    INDEX is an archive or an index. Files that are there are skipped, so to run again is to go on. Chips that can't be read are
    listed in OUTPUT/failed, and the exit status is then 3.
    """
    if size is not None and kind == "tif":
        raise click.UsageError("--size is for files of many chips, and a GeoTIFF has one.")
    if shard is not None and kind != "zarr":
        raise click.UsageError("--shard is for --format zarr.")
    _export(ctx, index, _format(kind, size, shard), shuffle, options)


def _format(kind: str, size: int | None, shard: int | None) -> Format:
    from xchip.export.exports import FORMATS
    from xchip.export.zarr_store import ZarrStore

    if kind == "zarr":
        return ZarrStore(size or ZarrStore().chunk, shard)
    settings: Options = {} if size is None else {"size": size}
    return FORMATS[kind](**settings)


def _export(ctx: click.Context, index: Any, kind: Format, shuffle: bool | None, options: Options) -> None:
    from xchip.export.exports import export_chips

    options = single_executor(ctx, options)
    job = options.get("job")
    output = options["output"]
    archive = archive_of(options)
    target = replace(archive, **{name: value for name in BUCKET_OPTIONS if (value := options[f"output_{name}"])})
    with resumable(ctx, options, output) as how:
        report = export_chips(
            index,
            output,
            kind,
            assets=names_of(options["assets"]),
            bbox=box_of(options["bbox"]),
            filters=filters_of(options["filters"]),
            shuffle=shuffle,
            part=(0, 1) if job else share_of(ctx, options) or (0, 1),
            job=job,
            storage=archive,
            pixels=storage_of(**pick(options, "endpoint region profile unsigned requester_pays"), signer=options["sign"]),
            target=target,
            **how,
            **pick(options, "sensor seed buffer pad max_nodata max_cloud max_shadow max_snow max_water"),
            **pick(options, "max_defective min_clear"),
        )
    if report.jobs is not None and job is not None:
        _tell_jobs(report.jobs, *job)
    conclude(ctx, report, f"All chips that failed are listed in {output}/failed; the same command tries them again.")


def _tell_jobs(jobs: int, number: int, cubes: int) -> None:
    """Whether the array has children enough, for no child sees the others."""
    counted = f"{cubes} cubes a job make {jobs} job{'s' if jobs > 1 else ''}"
    if number >= jobs:
        click.echo(f"{counted}, counted from 0: there is nothing to do for job {number}.")
        return
    click.echo(f"{counted}: this was job {number}, counted from 0.")
    children = os.environ.get("AWS_BATCH_JOB_ARRAY_SIZE", "")
    if children.isdigit() and int(children) < jobs:
        click.echo(f"The array has only {children} children; the cubes of {jobs - int(children)} jobs are not made.", err=True)

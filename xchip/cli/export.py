"""``xchip prechip`` and ``xchip export``: write the chips of an index to files."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from xchip.cli.index import access_options, limit_options
from xchip.cli.options import BUCKET_OPTIONS, Options, archive_of, chained, storage_of
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
from xchip.cli.running import conclude, pick, resumable, share_of, share_options, single_executor, worker_options
from xchip.cli.settings import ARRAY_INDEX, also_read, missing, output_of, preferred, variables_of

if TYPE_CHECKING:
    from xchip.core.types import IndexLike
    from xchip.export.job import Format

CUBES_PER_JOB = 10
"""The default of stacchip."""

chip_options = chained(
    click.option("--assets", metavar="NAME,...", help="Names of bands.  [default: Clay's bands for cubes, else the sensor's]"),
    sensor_option,
    condition_options,
    limit_options,
    click.option("--seed", type=int, default=0, show_default=True, help="Seed for the order of shuffled chips."),
    click.option("--buffer", type=click.IntRange(1), default=512, show_default=True, help="Chips to read and mix at once."),
    click.option("--pad", is_flag=True, help="Allow chips of several sizes: pad each to the largest."),
    harmonize_option,
    share_options,
    worker_options,
    click.option(
        "--retry-failed/--no-retry-failed", default=True, show_default=True, help="Retry chips that failed in an earlier run.",
    ),
    access_options,
    click.option("--output-endpoint", metavar="URL", help="S3 server of the output.  [default: that of the archive]"),
    click.option("--output-region", help="AWS region of the output.  [default: that of the archive]"),
    click.option("--output-profile", help="Profile in the AWS configuration for the output.  [default: that of the archive]"),
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
@click.option("--chip-bucket", metavar="BUCKET", help="Bucket for the cubes; the same as --output s3://BUCKET.")
@table_options
@click.option("--cube-size", type=click.IntRange(1), default=128, show_default=True, help="Chips per cube.")
@click.option(
    "--dtype", type=click.Choice(["float32", "stored"]), default="float32", show_default=True, help="Data type of the pixels."
)
@click.option(
    "--job",
    type=click.IntRange(0),
    metavar="N",
    help="Write only the cubes of this job, counted from 0: CUBES_PER_JOB cubes from number N x CUBES_PER_JOB.",
)
@click.option(
    "--cubes-per-job", type=click.IntRange(1), metavar="CUBES_PER_JOB", help=f"Cubes per job.  [default: {CUBES_PER_JOB}]"
)
@chip_options
@click.pass_context
def prechip(ctx: click.Context, /, index: str | None, cube_size: int, dtype: str, **options: Any) -> None:
    """Write shuffled npz cubes of chips, the training data of the Clay model.

    INDEX is an archive or an index, including stacchip's; XCHIP_PRECHIP_INDEX or STACCHIP_INDEXPATH can set it too.
    Re-running resumes: finished cubes are skipped. Chips that can't be read are listed in OUTPUT/failed, and the exit status is
    then 3. The command line takes precedence over XCHIP_PRECHIP_* variables, and these over STACCHIP_* variables.
    """  # fmt: skip
    from xchip.export.cubes import Cubes
    from xchip.indexing.stacchip import read_index

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
    """Return (number, cubes) of the job to do; None: all cubes, or the cubes of a part.

    AWS Batch sets the number of the child for every program, so --part and --array take precedence over that variable.
    """
    if preferred(ctx, "part", "array", "job") == "job":
        return options["job"], options["cubes_per_job"] or CUBES_PER_JOB
    if options["job"] is None and options["cubes_per_job"] is not None:
        raise missing("--job 0", "Number of the job whose cubes to write, counted from 0.", *variables_of(ctx, "job"))
    return None


@click.command()
@click.argument("index")
@click.option("-o", "--output", required=True, help="Folder or URL for the files.")
@click.option("--format", "kind", type=click.Choice(["npz", "zarr", "tar", "tif"]), required=True, help="Format of the files.")
@click.option("--size", type=click.IntRange(1), help="Chips per cube, per tar shard, or per chunk of a Zarr store.")
@click.option("--shard", type=click.IntRange(1), help="Chips per shard of a Zarr store, a multiple of --size.")
@click.option("--shuffle/--no-shuffle", default=None, help="Write chips in random order.  [default: for npz and tar]")
@chip_options
@click.pass_context
def export(
    ctx: click.Context, /, index: str, kind: str, size: int | None, shard: int | None, shuffle: bool | None, **options: Any
) -> None:
    """Write the chips of an index as files: npz cubes, one Zarr store, tar shards for webdataset, or GeoTIFFs.

    INDEX is an archive or an index. Re-running resumes: finished files are skipped. Chips that can't be read are listed in
    OUTPUT/failed, and the exit status is then 3.
    """
    if size is not None and kind == "tif":
        raise click.UsageError("--size is for files of many chips; a GeoTIFF has one chip.")
    if shard is not None and kind != "zarr":
        raise click.UsageError("--shard is for --format zarr.")
    _export(ctx, index, _format(kind, size, shard), shuffle, options)


def _format(kind: str, size: int | None, shard: int | None) -> Format:
    from xchip.export.exports import FORMATS
    from xchip.export.zarr_store import ZarrStore

    if kind == "zarr":
        return ZarrStore(size or ZarrStore().chunk, shard)
    settings: dict[str, Any] = {} if size is None else {"size": size}
    return FORMATS[kind](**settings)


def _export(ctx: click.Context, index: IndexLike, kind: Format, shuffle: bool | None, options: Options) -> None:
    from xchip.export.exports import export_chips

    options = single_executor(ctx, options)
    job = options.get("job")
    output = options["output"]
    archive = archive_of(options)
    target = replace(archive, **{name: value for name in BUCKET_OPTIONS if (value := options[f"output_{name}"])})
    with resumable(ctx, options, output) as run_options:
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
            **run_options,
            **pick(options, "sensor seed buffer pad max_nodata max_cloud max_shadow max_snow max_water"),
            **pick(options, "max_defective min_clear"),
        )
    if report.jobs is not None and job is not None:
        _print_jobs(report.jobs, *job)
    conclude(ctx, report, f"Failed chips are listed in {output}/failed; run the same command to retry them.")


def _print_jobs(jobs: int, number: int, cubes: int) -> None:
    """Print whether the array has enough children, because no child sees the others."""
    counted = f"{cubes} cubes per job make {jobs} job{'s' if jobs > 1 else ''}"
    if number >= jobs:
        click.echo(f"{counted}, counted from 0: there is nothing to do for job {number}.")
        return
    click.echo(f"{counted}: this was job {number}, counted from 0.")
    children = os.environ.get("AWS_BATCH_JOB_ARRAY_SIZE", "")
    if children.isdigit() and int(children) < jobs:
        click.echo(f"The array has only {children} children; the cubes of {jobs - int(children)} jobs are missing.", err=True)

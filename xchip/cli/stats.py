"""``xchip stats``: statistics of bands over the chips of an index."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import click

from xchip.cli.index import access_options
from xchip.cli.options import say_progress, storage_of
from xchip.cli.rows import box_of, filters_of, names_of
from xchip.cli.running import cluster_of, refuse_two_crews, take


@click.command()
@click.argument("index")
@click.option("-o", "--output", help="File *.json or *.yaml, a path or a URL.  [default: YAML to the standard output]")
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
def stats(index: str, output: str | None, **options: Any) -> None:
    """Mean, standard deviation and range of each band over the chips of an index that have no nodata pixels.

    INDEX is an archive or an index. The file has the keys of the Clay model's metadata.yaml.
    """
    from xchip.archive.read import read_index
    from xchip.export.band_stats import band_stats
    from xchip.export.stats_values import is_json

    refuse_two_crews(options)
    if output is not None:
        is_json(output)  # a wrong name is told now, and not when the work is done
    archive = storage_of(**{name: options[f"archive_{name}"] or options[name] for name in ("endpoint", "region", "profile")})
    rows = read_index(index, box_of(options["bbox"]), filters_of(options["filters"]), storage=archive)
    with cluster_of(options) as client:
        found = band_stats(
            rows,
            names_of(options["assets"]),
            storage=archive,
            pixels=storage_of(**take(options, "endpoint region profile unsigned requester_pays"), signer=options["sign"]),
            client=client,
            progress=partial(say_progress, "chips") if sys.stderr.isatty() else False,
            **take(options, "sensor harmonize skip_nodata sample seed threads"),
        )
    if output is None:
        click.echo(found.to_yaml(), nl=False)
        return
    click.echo(found)
    click.echo(f"written to {found.write(output, storage=archive)}")

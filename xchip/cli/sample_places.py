"""``xchip sample-places`` and ``xchip linz-surveys``: make lists of places and surveys for the processors."""

from __future__ import annotations

from typing import Any

import click

from xchip.cli.options import chained, check_writable, storage_of

layer_options = chained(
    click.option("--places", multiple=True, metavar="FILE", help="Layer whose features are places, such as towns or ports."),
    click.option("--rivers", multiple=True, metavar="FILE", help="Layer of lines; one random point on each."),
    click.option("--lakes", multiple=True, metavar="FILE", help="Layer of areas; one random point in each."),
)


@click.command()
@layer_options
@click.option("--random", type=click.IntRange(0), default=0, show_default=True, help="Number of random points in the region.")
@click.option("--region", metavar="FILE|W,S,E,N", help="Layer of areas, or degrees, for all places.  [default: the whole Earth]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed for the random points.")
@click.option("-o", "--output", required=True, callback=check_writable, help="File to write: .gpkg, .parquet, .fgb or .geojson.")
def sample_places(output: str, region: str | None, **options: Any) -> None:
    """Make a layer of places to search for scenes, the input of `xchip naip` and `xchip landsat`.

    FILE is any layer that geopandas reads, such as the layers of naturalearthdata.com. --places, --rivers and --lakes are
    repeatable.
    """
    from xchip.processors.sample_places import sample_places as sample
    from xchip.processors.sample_places import write_places

    places = sample(**options, region=_degrees(region))
    path = write_places(places, output)
    for layer, count in places["layer"].value_counts(sort=False).items():
        click.echo(f"{count:8,} {layer}")
    click.echo(f"{len(places):,} places in {path}")


def _degrees(region: str | None) -> str | tuple[float, ...] | None:
    """Return (west, south, east, north) if the text is four numbers; else the text, which names a file."""
    parts = (region or "").split(",")
    try:
        return tuple(float(part) for part in parts) if len(parts) == 4 else region
    except ValueError:
        return region


@click.command()
@click.option("--catalogue", metavar="URL", help="Root of the static STAC catalogue.  [default: that of s3://nz-imagery]")
@click.option(
    "--max-resolution",
    type=click.FloatRange(0, min_open=True),
    help="Leave out surveys with larger pixels, in metres.  [default: 0.3]",
)
@click.option("--endpoint", metavar="URL", help="S3 server of the catalogue.  [default: Amazon's]")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False),
    callback=check_writable,
    help="File to write.  [default: standard output]",
)
def linz_surveys(catalogue: str | None, max_resolution: float | None, endpoint: str | None, output: str | None) -> None:
    """List the latest survey of each region of New Zealand, for `xchip linz --surveys`.

    All surveys of the latest year are kept, such as an urban and a rural survey. Scanned photographs, infrared imagery and
    surveys coarser than --max-resolution are left out.
    """
    from xchip.processors.linz import CATALOGUE, PUBLIC, RESOLUTION, latest_surveys, survey_paths

    root = catalogue or CATALOGUE
    storage = PUBLIC if endpoint is None else storage_of(endpoint, PUBLIC.region, None, unsigned=True)
    limit = RESOLUTION if max_resolution is None else max_resolution
    lines = [f"# The latest survey of each region in {root}, up to {limit:g} m."]
    lines += [survey.path for survey in latest_surveys(survey_paths(root, storage), limit)]
    text = "\n".join(lines) + "\n"
    if output is None:
        click.echo(text, nl=False)
        return
    with open(output, "w", encoding="utf-8") as file:
        file.write(text)
    click.echo(f"{len(lines) - 1:,} surveys in {output}")

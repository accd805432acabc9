"""Options that select rows and bands, as arguments of `xchip.read_index` and `xchip.open_chips`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import click

from xchip.cli.options import Options, chained
from xchip.cli.settings import missing, url_of_bucket, variables_of
from xchip.core.types import BBox

if TYPE_CHECKING:
    import pandas as pd

_SYMBOLS = {"eq": "==", "neq": "!=", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}


Conditions: TypeAlias = list[tuple[str, str, Any]]
"""Conditions on columns that must all hold: (column, operator, value)."""


def names_of(text: str | None) -> list[str] | None:
    """Return the names in ``red,nir``; None without text."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def box_of(text: str | None) -> BBox | None:
    """Return the bbox of ``W,S,E,N``; None without text."""
    from xchip.stac.api.conditions import checked_bbox

    return None if text is None else checked_bbox(text)


def filters_of(sentences: tuple[str, ...]) -> Conditions | None:
    """Return the conditions of sentences such as ``cloud_fraction<=0.1``; None without sentences."""
    from xchip.stac.api.conditions import comparisons

    return [(term.field, _SYMBOLS[term.operator], term.value) for term in comparisons(sentences)] or None


condition_options = chained(
    click.option("--bbox", metavar="W,S,E,N", help="Area in degrees; W > E crosses the antimeridian."),
    click.option(
        "--filter", "filters", multiple=True, metavar="CONDITION",
        help="Condition on a column, such as 'cloud_fraction<=0.1', with = != < <= > >=; repeatable.",
    ),
)  # fmt: skip
"""Options that select rows of an index."""

sensor_option = click.option("--sensor", help="Name of the sensor, for an index that does not name it.")

harmonize_option = click.option(
    "--harmonize", is_flag=True, help="Undo the offset of Sentinel-2's processing baseline 04.00 where files have it."
)

table_options = chained(
    click.option(
        "--data-bucket", metavar="BUCKET",
        help="Bucket of the items <platform>/<item>/stac_item.json of stacchip's tables; other indexes name it.",
    ),
    click.option("--platform", help="Use only chips of this platform or sensor, such as landsat-c2l1 (Clay's name)."),
)  # fmt: skip
"""Options for an index that stacchip's environment variables set too."""


def platform_filter(platform: str | None) -> Conditions:
    """Return the conditions that select the rows of a platform.

    Raises
    ------
    ValueError
        If the platform is unknown.
    """
    from xchip.sensors.clay import sensor_of_platform

    return [] if not platform else [("sensor", "==", sensor_of_platform(platform))]


def items_root_of(options: Options) -> str | None:
    """Return the location of the items of stacchip's tables."""
    return None if options["data_bucket"] is None else url_of_bucket(options["data_bucket"])


def require_items_root(ctx: click.Context, rows: pd.DataFrame) -> None:
    """Check that the location of each row's item is known.

    Raises
    ------
    Missing
        If a row has no location, and no bucket is given.
    """
    if ctx.params["data_bucket"] is None and rows["item_href"].isna().any():
        what = "The index does not record its items; name the bucket that has them as <platform>/<item>/stac_item.json."
        raise missing("--data-bucket my-bucket", what, *variables_of(ctx, "data_bucket"))

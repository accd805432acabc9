"""What options say of rows and bands, as `xchip.read_index` and `xchip.open_chips` take it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from xchip.cli.options import chained
from xchip.cli.settings import missing, url_of_bucket
from xchip.cli.settings import names_of as variables_of

if TYPE_CHECKING:
    import pandas as pd

_SYMBOLS = {"eq": "==", "neq": "!=", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}


def names_of(text: str | None) -> list[str] | None:
    """``red,nir`` -> names of bands; None where not given."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def box_of(text: str | None) -> tuple[float, float, float, float] | None:
    """``W,S,E,N`` -> a bbox; None where not given."""
    from xchip.stac.api.conditions import checked_bbox

    return None if text is None else checked_bbox(text)


def filters_of(sentences: tuple[str, ...]) -> list[tuple[str, str, Any]] | None:
    """``cloud_fraction<=0.1``, one or several -> filters that must all hold; None without any."""
    from xchip.stac.api.conditions import comparisons

    return [(one.field, _SYMBOLS[one.operator], one.value) for one in comparisons(sentences)] or None


table_options = chained(
    click.option(
        "--data-bucket", metavar="BUCKET",
        help="Bucket with the items of stacchip's tables: <platform>/<item>/stac_item.json. Other indexes tell by themselves.",
    ),
    click.option("--platform", help="Take chips of this platform alone, by Clay's name or that of the sensor: landsat-c2l1."),
)  # fmt: skip
"""What stacchip's environment says of an index, besides its path."""


def platform_filter(platform: str | None) -> list[tuple[str, str, Any]]:
    """The condition on rows that a platform is.

    Raises
    ------
    ValueError
        If it is not known.
    """
    from xchip.sensors.clay import sensor_of_platform

    return [] if not platform else [("sensor", "==", sensor_of_platform(platform))]


def items_root_of(options: dict[str, Any]) -> str | None:
    """Where the items of stacchip's tables are."""
    return None if options["data_bucket"] is None else url_of_bucket(options["data_bucket"])


def told_items(ctx: click.Context, rows: pd.DataFrame) -> None:
    """Refuse rows that do not tell where their items are.

    Raises
    ------
    Missing
        If there are such rows, and no bucket was given.
    """
    if ctx.params["data_bucket"] is None and rows["item_href"].isna().any():
        what = "The index does not tell where its items are: in which bucket are they, as <platform>/<item>/stac_item.json?"
        raise missing("--data-bucket my-bucket", what, *variables_of(ctx, "data_bucket"))

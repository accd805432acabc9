"""``xchip info``: show how xchip reads items."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from xchip.cli.options import one_line

if TYPE_CHECKING:
    from xchip.core.quality import BitField
    from xchip.core.scene import Scene


@click.command()
@click.argument("items", nargs=-1, required=True, metavar="ITEM...")
@click.option("--open/--no-open", "may_open", default=True, help="Open files if the metadata are incomplete.")
@click.option("--sensor", help="Name of the sensor, for items that do not name it.")
@click.pass_context
def info(ctx: click.Context, items: Sequence[str], may_open: bool, sensor: str | None) -> None:
    """Show how xchip reads items and where each fact comes from, or why it can't read them."""
    from xchip.stac.scene.understand import HeaderNeeded

    failed = False
    for scene in _scenes(items, sensor, may_open):
        if not isinstance(scene, Exception):
            click.echo(f"{describe(scene)}\n")
            continue
        if ctx.find_root().params["debug"]:
            raise scene
        failed = True
        hint = "; leave out --no-open to open it" if isinstance(scene, HeaderNeeded) else ""
        click.echo(f"Error: {one_line(scene)}{hint}", err=True)
    if failed:
        ctx.exit(1)


def _scenes(paths: Sequence[str], sensor: str | None, may_open: bool) -> Iterator[Scene | Exception]:
    """Yield the scene of each item, or the error, so that one bad item does not hide the others."""
    from xchip.raster.header import read_header
    from xchip.stac.scene.understand import plain_items, understand

    for path in paths:
        try:
            items = list(plain_items([path]))
        except (ValueError, OSError) as error:
            yield error
            continue
        for item, href in items:
            try:
                yield understand(item, href=href, sensor=sensor, header=read_header if may_open else None)
            except (ValueError, OSError) as error:
                yield error


def describe(scene: Scene) -> str:
    """Return all facts of a scene as aligned text."""
    (res_y, res_x), (height, width) = scene.grid.res, scene.grid.shape
    left, bottom, right, top = scene.grid.bounds
    crs, unit = _crs_and_unit(scene.grid.crs)
    facts = [
        ("collection", scene.collection or "none", ""),
        ("datetime", f"{scene.datetime:%Y-%m-%d %H:%M:%S} UTC", _origin(scene, "datetime")),
        ("sensor", scene.sensor or "unknown product", _origin(scene, "sensor")),
        ("CRS", crs, _origin(scene, "crs")),
        ("grid", f"{height:,} x {width:,} pixels of {res_y:g} x {res_x:g} {unit} (height x width)", _origin(scene, "grid")),
        ("extent", f"x {left:.10g} to {right:.10g}, y {bottom:.10g} to {top:.10g}", ""),
    ]
    bands = [("name", "asset", "dtype", "nodata", "pixel", "pixels", "file")]
    for band in scene.bands:
        asset = band.asset if band.count == 1 else f"{band.asset} [{band.index}/{band.count}]"
        nodata = "none" if band.nodata is None else f"{band.nodata:g}"
        (y, x), (n_y, n_x) = band.grid.res, band.grid.shape
        bands.append((band.name, asset, band.dtype, nodata, f"{y:g} x {x:g}", f"{n_y} x {n_x}", band.href))
    lines = [scene.item_id, *_table(facts, indent="  ")]
    lines += ["", f"  bands  {_origin(scene, 'bands')}".rstrip(), *_table(bands, indent="    ")]
    lines += ["", f"  quality  {_origin(scene, 'quality')}".rstrip(), *_table(_quality(scene), indent="    ")]
    return "\n".join(lines)


def _origin(scene: Scene, fact: str) -> str:
    origin = scene.origins.get(fact)
    return f"from {origin}" if origin else ""


def _crs_and_unit(code: str) -> tuple[str, str]:
    import pyproj

    from xchip.core.html import unit_of

    crs = pyproj.CRS(code)
    return f"{code} ({crs.name})" if len(code) < 20 else f"no code ({crs.name})", unit_of(code)


def _quality(scene: Scene) -> list[tuple[str, str]]:
    from xchip.core.quality import QualityRule

    rule = scene.rule
    if not isinstance(rule, QualityRule):
        return [("NODATA", f"where all of these bands are nodata: {', '.join(rule.bands)}"), ("CLEAR", "all else")]
    rows = [("band", rule.band)]
    rows += [(cls.name, _conditions(conditions)) for cls, conditions in rule.conditions]
    rows.append((rule.default.name, "all else"))
    if rule.ignored:
        rows.append(("no mapping", f"{', '.join(rule.ignored)}: these count as {rule.default.name}"))
    return rows


def _conditions(conditions: Sequence[int | BitField]) -> str:
    """Return conditions as text: values, then bit fields, with the value of several bits in binary."""
    numbers = [condition for condition in conditions if isinstance(condition, int)]
    texts = [f"{'value' if len(numbers) == 1 else 'values'} {', '.join(_runs(numbers))}"] if numbers else []
    for field in conditions:
        if isinstance(field, int):
            continue
        last = field.offset + field.length - 1
        if field.length > 1:
            texts.append(f"bits {field.offset}-{last} = {field.value:0{field.length}b}")
        else:
            texts.append(f"bit {field.offset}" if field.value else f"bit {field.offset} = 0")
    return ", ".join(texts)


def _runs(numbers: Sequence[int]) -> list[str]:
    """Return numbers as text; three or more consecutive numbers as "first-last"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return [text for run in runs for text in ([f"{run[0]}-{run[-1]}"] if len(run) > 2 else map(str, run))]


def _table(rows: Sequence[Sequence[str]], *, indent: str) -> list[str]:
    """Return lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]

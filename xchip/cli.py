"""The command line: options and environment variables, and one library call behind each command.

Libraries are imported inside the commands, so that ``xchip --help`` is as quick as ``import xchip``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import xchip

if TYPE_CHECKING:
    from xchip.stac.scene import Scene


class Commands(click.Group):
    """Shows a user's mistakes as one line each; our own keep their traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (ValueError, OSError, ImportError) as error:
            if ctx.params["debug"]:
                raise
            raise click.ClickException(one_line(error)) from error


def one_line(error: BaseException) -> str:
    """The message of an error, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


class Pixels(click.ParamType):  # type: ignore[type-arg]
    """``256``, or ``256x512`` for a height and a width."""

    name = "pixels"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        lengths = value.lower().split("x")
        if len(lengths) > 2 or not all(length.strip().isdigit() for length in lengths):
            self.fail(f"{value!r} is no number of pixels, such as 256, and no HEIGHTxWIDTH, such as 256x512", param, ctx)
        numbers = tuple(int(length) for length in lengths)
        return numbers if len(numbers) == 2 else numbers[0]


FRACTION = click.FloatRange(0, 1)


@click.group(
    cls=Commands,
    context_settings={"auto_envvar_prefix": "XCHIP", "help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--debug", is_flag=True, help="Show the whole traceback of an error.")
@click.version_option(xchip.__version__, prog_name="xchip")
def main(debug: bool) -> None:
    """Index satellite and aerial scenes into chips.

    Every option can be given as an environment variable, such as XCHIP_INDEX_SIZE=512 for `xchip index --size 512`.
    """


@main.command()
@click.option("-o", "--output", default="xchip-demo", show_default=True, type=click.Path(file_okay=False), help="Folder.")
@click.option("--scenes", default=3, show_default=True, type=click.IntRange(1, 12), help="How many scenes.")
@click.option("--size", default="256", show_default=True, type=Pixels(), help="Pixels of a chip.")
@click.option("--pixels", default=2048, show_default=True, type=click.IntRange(256, 10980), help="Height and width of a scene.")
def demo(output: str, scenes: int, size: Any, pixels: int) -> None:
    """Write synthetic scenes, index them, and draw the index.

    Nothing is downloaded. The scenes are invented: one place under several skies, in the likeness of Sentinel-2.
    """
    from xchip.demo import run

    run(Path(output), scenes=scenes, size=size, pixels=pixels, echo=click.echo)


@main.command()
@click.argument("items", nargs=-1, required=True, metavar="ITEM...")
@click.option("-o", "--output", required=True, help="Folder or URL, which gets a file a scene; or one *.parquet file.")
@click.option("--size", default="256", show_default=True, type=Pixels(), help="Pixels of a chip: 256, or HEIGHTxWIDTH.")
@click.option("--stride", type=Pixels(), help="Pixels from one chip to the next.  [default: the size]")
@click.option(
    "--edge", type=click.Choice(["drop", "pad", "shift", "partial"]), default="drop", show_default=True,
    help="What happens to chips at the border.",
)  # fmt: skip
@click.option(
    "--anchor", type=click.Choice(["origin", "crs"]), default="origin", show_default=True,
    help="Chips begin at the scene's corner, or on cells that all scenes of a CRS share.",
)  # fmt: skip
@click.option("--sensor", help="Name of the product, where the items do not tell it.")
@click.option("--quality", help="Name of the quality band, where it is not the product's own.")
@click.option("--max-cloud", type=FRACTION, help="Keep chips with at most this fraction of cloud.")
@click.option("--max-nodata", type=FRACTION, help="Keep chips with at most this fraction of nodata.")
def index(
    items: Sequence[str],
    output: str,
    size: Any,
    stride: Any,
    edge: Any,
    anchor: Any,
    sensor: str | None,
    quality: str | None,
    max_cloud: float | None,
    max_nodata: float | None,
) -> None:
    """Write the chip index of STAC items as GeoParquet.

    ITEM is the path or URL of an item, an ItemCollection, or a stac-geoparquet file.
    """
    from xchip.progress import Progress, SceneTasks

    lazy = xchip.index_items(
        list(items),
        size,
        stride=stride,
        edge=edge,
        anchor=anchor,
        sensor=sensor,
        quality=quality,
        max_cloud=max_cloud,
        max_nodata=max_nodata,
    )
    with Progress(lazy.npartitions, "indexed") as progress, SceneTasks(progress):
        path = xchip.write_index(lazy, output)
    click.echo(f"{_rows(path):,} chips of {lazy.npartitions:,} scenes in {path}")


def _rows(path: str) -> int:
    """Rows of an index on disk; only footers are read."""
    import fsspec
    import pyarrow.dataset

    fs, root = fsspec.core.url_to_fs(path)
    return int(pyarrow.dataset.dataset(root, format="parquet", filesystem=fs).count_rows())


@main.command()
@click.argument("items", nargs=-1, required=True, metavar="ITEM...")
@click.option("--open/--no-open", "may_open", default=True, help="Whether to open files where metadata leave a question.")
@click.option("--sensor", help="Name of the product, where the items do not tell it.")
@click.pass_context
def info(ctx: click.Context, items: Sequence[str], may_open: bool, sensor: str | None) -> None:
    """Show how items are understood, and where each fact comes from; or why they can't be read."""
    from xchip.stac.items import HeaderNeeded

    failed = False
    for scene in _understood(items, sensor, may_open):
        if not isinstance(scene, Exception):
            click.echo(f"{describe(scene)}\n")
            continue
        if ctx.find_root().params["debug"]:
            raise scene
        failed = True
        hint = "; without --no-open, xchip opens it" if isinstance(scene, HeaderNeeded) else ""
        click.echo(f"Error: {one_line(scene)}{hint}", err=True)
    if failed:
        ctx.exit(1)


def _understood(paths: Sequence[str], sensor: str | None, may_open: bool) -> Iterator[Scene | Exception]:
    """Each item, or what is wrong with it: one bad item does not hide the others."""
    from xchip.stac.header import read_header
    from xchip.stac.items import plain_items, understand

    for path in paths:
        try:
            found = list(plain_items([path]))
        except (ValueError, OSError) as error:
            yield error
            continue
        for item, href in found:
            try:
                yield understand(item, href=href, sensor=sensor, header=read_header if may_open else None)
            except (ValueError, OSError) as error:
                yield error


def describe(scene: Scene) -> str:
    """All that is known of a scene, as aligned text."""
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

    crs = pyproj.CRS(code)
    unit = crs.axis_info[0].unit_name if crs.axis_info else ""
    return f"{code} ({crs.name})" if len(code) < 20 else f"no code ({crs.name})", {"metre": "m", "degree": "°"}.get(unit, unit)


def _quality(scene: Scene) -> list[tuple[str, str]]:
    from xchip.quality import QualityRule

    rule = scene.rule
    if not isinstance(rule, QualityRule):
        return [("NODATA", f"where all of these are nodata: {', '.join(rule.bands)}"), ("CLEAR", "all else")]
    rows = [("band", rule.band)]
    rows += [(cls.name, _conditions(conditions)) for cls, conditions in rule.conditions]
    rows.append((rule.default.name, "all else"))
    if rule.ignored:
        rows.append(("no mapping", f"{', '.join(rule.ignored)}: these count as {rule.default.name}"))
    return rows


def _conditions(conditions: Sequence[Any]) -> str:
    """Values, then bit fields: a bit that is set, or bits from-to = value in binary."""
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
    """Numbers as text; three or more that follow each other as "from-to"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return [text for run in runs for text in ([f"{run[0]}-{run[-1]}"] if len(run) > 2 else map(str, run))]


def _table(rows: Sequence[Sequence[str]], *, indent: str) -> list[str]:
    """Lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]

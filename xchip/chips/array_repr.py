"""HTML and text of the ``.chips`` accessor."""

from __future__ import annotations

from xchip.core.arrays import Xarray, as_dataset, pixel_grid
from xchip.core.grid import ChipGrid, chip_grid
from xchip.core.html import accessor_html, pixel_rows, times
from xchip.sensors.array_quality import quality_of


def array_html(obj: Xarray) -> str:
    """Return bands, grid and quality of an array as HTML. No pixel is read."""
    rows, grid = _array_rows(obj)
    return accessor_html("xchip: .chips", rows, grid)


def array_text(obj: Xarray) -> str:
    """Return bands, grid and quality of an array as text. No pixel is read."""
    rows, _ = _array_rows(obj)
    return "\n".join(["<xchip: .chips>", *(f"    {name + ':':<12} {value}" for name, value in rows)])


def _array_rows(obj: Xarray) -> tuple[list[tuple[str, object]], ChipGrid | None]:
    try:
        ds = as_dataset(obj)
        grid = chip_grid(pixel_grid(ds))
    except ValueError as problem:
        # The repr of an array without a grid shows the reason.
        return [("no grid", problem)], None
    rows = [("bands", ", ".join(str(name) for name in ds.data_vars)), *pixel_rows(grid.pixels)]
    if "time" in ds.sizes:
        rows.insert(1, ("time steps", f"{ds.sizes['time']:,}"))
    if "sensor" in ds.attrs:
        rows.append(("sensor", ds.attrs["sensor"]))
    try:
        array, rule = quality_of(ds.isel(y=slice(1), x=slice(1)))
        rows.append(("quality", f"{array.name}: {rule.source or 'a rule of its own'}" if rule else "nodata of the bands"))
    except ValueError as problem:
        rows.append(("quality", problem))
    return [*rows, (".grid()", f"{times(grid.shape)} chips of {times(grid.size)} pixels")], grid

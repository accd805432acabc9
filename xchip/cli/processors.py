"""``xchip sentinel-2``, ``xchip landsat`` ...: one command per recipe, built from the recipe."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from xchip.cli.options import (
    FRACTION,
    ChipSizeType,
    Decorator,
    Options,
    archive_location,
    archive_of,
    chained,
    file_access,
    storage_of,
)
from xchip.cli.running import conclude, resumable, share_of, share_options, single_executor, worker_options
from xchip.cli.settings import ARRAY_INDEX, missing, output_of, preferred, variables

if TYPE_CHECKING:
    from xchip.io.storage import StorageOptions
    from xchip.processors.recipe import Option, Recipe

BUCKET = "STACCHIP_BUCKET"

Units: TypeAlias = slice | tuple[int, ...]
"""Indices of units."""


class Numbers(click.ParamType):  # type: ignore[type-arg]
    """``2018-2020,2023``: integers, and ranges that include both ends."""

    name = "numbers"

    def convert(self, value: str | tuple[int, ...], param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if not isinstance(value, str):
            return value
        numbers: list[int] = []
        for span in value.split(","):
            first, dash, last = (part.strip() for part in span.partition("-"))
            if not first.isdigit() or (dash and not (last.isdigit() and int(first) <= int(last))):
                self.fail(
                    f"{value!r} is not a list of numbers >= 0; use numbers and ranges, such as 7, 0-9 or 3,7,11", param, ctx
                )
            numbers += range(int(first), int(last or first) + 1)
        return tuple(numbers)


class Names(click.ParamType):  # type: ignore[type-arg]
    """``red,green``."""

    name = "name,..."

    def convert(self, value: str | tuple[str, ...], param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        return tuple(filter(None, (name.strip() for name in value.split(",")))) if isinstance(value, str) else value


_TYPES: dict[str, click.ParamType] = {  # type: ignore[type-arg]
    "text": click.STRING,
    "integer": click.INT,
    "number": click.FLOAT,
    "fraction": FRACTION,
    "names": Names(),
    "integers": Numbers(),
    "pixels": ChipSizeType(),
}

access_options = chained(
    file_access,
    click.option("--requester-pays/--no-requester-pays", default=None, help="Pay for reading.  [default: depends on the source]"),
    click.option("--sign/--no-sign", default=None, help="Sign the URLs of files.  [default: depends on the source]"),
    archive_location,
)  # fmt: skip


def command_of(recipe: Recipe) -> click.Command:
    """Return the command of a recipe."""

    @click.pass_context
    def run(ctx: click.Context, /, **options: Any) -> None:
        _run(ctx, recipe, options)

    run.__doc__ = f"{recipe.summary}\n\n{recipe.description}\n\n{_MORE}"
    decorate = chained(_unit_options(recipe), *(_option(recipe, option) for option in recipe.all_options()), _run_options)
    return click.command(recipe.name)(decorate(run))


_MORE = "Re-running resumes: finished items are skipped. A child of an AWS Batch array job does the unit with its index."
_run_options = chained(
    worker_options,
    click.option(
        "--retry-failed/--no-retry-failed", default=True, show_default=True, help="Retry items that failed in an earlier run."
    ),
    click.option("--dry-run", is_flag=True, help="List the items that would be indexed, and write nothing."),
    access_options,
)


def _unit_options(recipe: Recipe) -> Decorator:
    return chained(
        click.option(
            "-i", "--index", type=Numbers(), metavar="N", envvar=variables(recipe.name, "index", ARRAY_INDEX), show_envvar=True,
            help="Index of the unit to do, counted from 0; several units as 3,7 or 0-9.",
        ),
        share_options,
        click.option(
            "-o", "--output", envvar=variables(recipe.name, "output"), show_envvar=True, help="Folder or URL of the archive.",
        ),
        click.option(
            "--bucket", envvar=variables(recipe.name, "bucket", BUCKET), show_envvar=True,
            help="Bucket of the archive; the same as --output s3://BUCKET.",
        ),
    )  # fmt: skip


def _option(recipe: Recipe, option: Option) -> Decorator:
    """Return the command line option that sets an option of a recipe."""
    name = option.name.replace("_", "-")
    kind = click.Choice(option.choices) if option.kind == "choice" else _TYPES.get(option.kind)
    flag = option.kind == "flag"
    return click.option(
        f"--{name}/--no-{name}" if flag else f"--{name}",
        option.name,
        type=None if flag else kind,
        default=_default_text(option.default),
        show_default=option.default is not None,
        envvar=variables(recipe.name, option.name, *option.env),
        show_envvar=True,
        help=option.help,
    )


def _default_text(default: object) -> object:
    """Return a default in the form of the command line, if it is a tuple."""
    if not isinstance(default, tuple):
        return default
    if len(default) > 2 and all(isinstance(n, int) for n in default) and default == tuple(range(default[0], default[-1] + 1)):
        return f"{default[0]}-{default[-1]}"
    return ",".join(map(str, default))


def _run(ctx: click.Context, recipe: Recipe, options: Options) -> None:
    options = single_executor(ctx, options)
    values = {option.name: options[option.name] for option in recipe.all_options()}
    for option in recipe.all_options():
        if option.required and values[option.name] is None:
            flag = "--" + option.name.replace("_", "-")
            raise missing(f"{flag} {option.example}", option.help, *variables(recipe.name, option.name, *option.env))
    units = _units(ctx, recipe, options)
    pixels = _pixels(recipe, options)
    if options["dry_run"]:
        _list(recipe, units, values, pixels)
        return
    output = output_of(ctx, options, "output", "bucket", "Folder or URL of the archive.")
    from xchip.processors.pipeline import process

    with resumable(ctx, options, output) as run_options:
        report = process(
            recipe,
            output,
            units,
            storage=archive_of(options),
            pixels=pixels,
            **run_options,
            **values,
        )
    if not (report.done or report.skipped or report.failed):
        click.echo(f"No items found for {_unit_text(units)}: there is nothing to do.")
        return
    conclude(ctx, report, f"To list the failures: xchip status {output} --failures")


def _list(recipe: Recipe, units: Units, values: Options, pixels: StorageOptions) -> None:
    from xchip.processors.pipeline import choose_items
    from xchip.processors.stage import PROBLEM

    count = 0
    for item in choose_items(recipe, units, pixels=pixels, **values):
        count += 1
        properties = item["properties"]
        cloud = properties.get("eo:cloud_cover")
        when = properties.get("datetime") or properties.get("start_datetime") or item.get(PROBLEM)
        click.echo(f"{item.get('collection') or '-'} {item['id']} {when}" + ("" if cloud is None else f" {cloud:g} % cloud"))
    if not count:
        click.echo(f"No items found for {_unit_text(units)}.")


def _unit_text(units: Units) -> str:
    if isinstance(units, slice):
        return f"part {units.start}/{units.step} of the units"
    return f"unit {', '.join(map(str, units))}"


def _units(ctx: click.Context, recipe: Recipe, options: Options) -> Units:
    """Return the units to do.

    AWS Batch sets the number of the child for every program, so --part and --array take precedence over that variable.
    """
    if preferred(ctx, "part", "array", "index") != "index" and (share := share_of(ctx, options)) is not None:
        return slice(share[0], None, share[1])
    if options["index"] is None:
        what = "Index of the unit to do, counted from 0; or --part 0/100 for a share of all units."
        raise missing("--index 0", what, *variables(recipe.name, "index", ARRAY_INDEX))
    units: tuple[int, ...] = options["index"]
    return units


def _pixels(recipe: Recipe, options: Options) -> StorageOptions:
    """Return the access to the source's files: the recipe's, changed by the user's options."""
    if options["unsigned"]:
        region = options["region"] or recipe.pixels.region
        return storage_of(options["endpoint"], region, options["profile"], unsigned=True)
    changes = {name: options[name] for name in ("endpoint", "region", "profile", "requester_pays") if options[name] is not None}
    if options["profile"] is not None:
        changes |= {"unsigned": False}
    if options["sign"] is not None:
        changes |= {"signer": "planetary-computer" if options["sign"] else None}
    return replace(recipe.pixels, **changes)


def command_named(name: str) -> click.Command:
    """Return the command of the recipe with this name."""
    from xchip.processors.registry import find

    return command_of(find(name))

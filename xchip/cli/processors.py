"""``xchip sentinel-2``, ``xchip landsat`` ...: a command for each recipe, made of what the recipe says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from xchip.cli.options import FRACTION, ChipSizeType, archive_of, chained, storage_of
from xchip.cli.running import conclude, single_executor, share_of, share_options, resumable, worker_options
from xchip.cli.settings import ARRAY_INDEX, missing, output_of, preferred, variables

if TYPE_CHECKING:
    from xchip.io.storage import StorageOptions
    from xchip.processors.recipe import Option, Recipe

BUCKET = "STACCHIP_BUCKET"


class Numbers(click.ParamType):  # type: ignore[type-arg]
    """``2018-2020,2023``: whole numbers, and ranges with both ends."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        numbers: list[int] = []
        for span in value.split(","):
            first, dash, last = (part.strip() for part in span.partition("-"))
            if not first.isdigit() or (dash and not (last.isdigit() and int(first) <= int(last))):
                self.fail(f"{value!r} is no list of numbers from 0 on, such as 7, 0-9 or 3,7,11", param, ctx)
            numbers += range(int(first), int(last or first) + 1)
        return tuple(numbers)


class Names(click.ParamType):  # type: ignore[type-arg]
    """``red,green``."""

    name = "name,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return tuple(filter(None, (name.strip() for name in value.split(",")))) if isinstance(value, str) else value


_TYPES: Options = {
    "text": click.STRING,
    "integer": click.INT,
    "number": click.FLOAT,
    "fraction": FRACTION,
    "names": Names(),
    "integers": Numbers(),
    "pixels": ChipSizeType(),
}

access_options = chained(
    click.option("--endpoint", metavar="URL", help="S3 server of the items' files, where it is not Amazon's."),
    click.option("--region", help="Its region."),
    click.option("--profile", help="Its profile in the AWS configuration."),
    click.option("--unsigned", is_flag=True, help="Read files without credentials, from public buckets."),
    click.option(
        "--requester-pays/--no-requester-pays", default=None, help="Pay for reading files.  [default: as the source asks]",
    ),
    click.option("--sign/--no-sign", default=None, help="Sign the files' URLs.  [default: as the source asks]"),
    click.option("--archive-endpoint", metavar="URL", help="S3 server of the archive.  [default: --endpoint]"),
    click.option("--archive-region", help="Its region.  [default: --region]"),
    click.option("--archive-profile", help="Its profile in the AWS configuration.  [default: --profile]"),
)  # fmt: skip


def command_of(recipe: Recipe) -> click.Command:
    """The command of a recipe."""

    @click.pass_context
    def run(ctx: click.Context, /, **options: Any) -> None:
        _run(ctx, recipe, options)

    run.__doc__ = f"{recipe.summary}\n\n{recipe.description}\n\n{_MORE}"
    for decorate in reversed((_where(recipe), *(_option(recipe, option) for option in recipe.all_options()), _HOW)):
        run = decorate(run)
    return click.command(recipe.name)(run)


_MORE = "What is done is skipped, so to run again is to go on. A child of an AWS Batch array job does the unit of its own index."
_HOW = chained(
    worker_options,
    click.option(
        "--retry-failed/--no-retry-failed", default=True, show_default=True, help="Try again what failed in an earlier run."
    ),
    click.option("--dry-run", is_flag=True, help="List the items that would be taken, and write nothing."),
    access_options,
)


def _where(recipe: Recipe) -> Callable[[Any], Any]:
    return chained(
        click.option(
            "-i", "--index", type=Numbers(), metavar="N", envvar=variables(recipe.name, "index", ARRAY_INDEX), show_envvar=True,
            help="The unit to do, counted from 0; several as in 3,7 or 0-9.",
        ),
        share_options,
        click.option(
            "-o", "--output", envvar=variables(recipe.name, "output"), show_envvar=True, help="Folder or URL of the archive.",
        ),
        click.option(
            "--bucket", envvar=variables(recipe.name, "bucket", BUCKET), show_envvar=True,
            help="Bucket of the archive: the same as --output s3://BUCKET.",
        ),
    )  # fmt: skip


def _option(recipe: Recipe, option: Option) -> Callable[[Any], Any]:
    """The option of the command line that sets an option of a recipe."""
    name = option.name.replace("_", "-")
    kind = click.Choice(option.choices) if option.kind == "choice" else _TYPES.get(option.kind)
    flag = option.kind == "flag"
    return click.option(
        f"--{name}/--no-{name}" if flag else f"--{name}",
        option.name,
        type=None if flag else kind,
        default=_shown(option.default),
        show_default=option.default is not None,
        envvar=variables(recipe.name, option.name, *option.env),
        show_envvar=True,
        help=option.help,
    )


def _shown(default: Any) -> Any:
    """A default as it would be written on the command line."""
    if not isinstance(default, tuple):
        return default
    if len(default) > 2 and all(isinstance(n, int) for n in default) and default == tuple(range(default[0], default[-1] + 1)):
        return f"{default[0]}-{default[-1]}"
    return ",".join(map(str, default))


def _run(ctx: click.Context, recipe: Recipe, options: Options) -> None:
    options = single_executor(ctx, options)
    given = {option.name: options[option.name] for option in recipe.all_options()}
    for option in recipe.all_options():
        if option.required and given[option.name] is None:
            flag = "--" + option.name.replace("_", "-")
            raise missing(f"{flag} {option.example}", option.help, *variables(recipe.name, option.name, *option.env))
    units = _units(ctx, recipe, options)
    pixels = _pixels(recipe, options)
    if options["dry_run"]:
        _list(recipe, units, given, pixels)
        return
    output = output_of(ctx, options, "output", "bucket", "Folder or URL of the archive.")
    from xchip.processors.pipeline import process

    with resumable(ctx, options, output) as how:
        report = process(
            recipe,
            output,
            units,
            storage=archive_of(options),
            pixels=pixels,
            **how,
            **given,
        )
    if not (report.done or report.skipped or report.failed):
        click.echo(f"Nothing was found for {_called(units)}: there is nothing to do.")
        return
    conclude(ctx, report, f"To see all that failed: xchip status {output} --failures")


def _list(recipe: Recipe, units: Any, given: Options, pixels: StorageOptions) -> None:
    from xchip.processors.pipeline import choose_items
    from xchip.processors.stage import PROBLEM

    nothing = True
    for item in choose_items(recipe, units, pixels=pixels, **given):
        nothing = False
        properties = item["properties"]
        cloud = properties.get("eo:cloud_cover")
        when = properties.get("datetime") or properties.get("start_datetime") or item.get(PROBLEM)
        click.echo(f"{item.get('collection') or '-'} {item['id']} {when}" + ("" if cloud is None else f" {cloud:g} % cloud"))
    if nothing:
        click.echo(f"Nothing was found for {_called(units)}.")


def _called(units: Any) -> str:
    if isinstance(units, slice):
        return f"part {units.start}/{units.step} of the units"
    return f"unit {', '.join(map(str, units))}"


def _units(ctx: click.Context, recipe: Recipe, options: Options) -> Any:
    """Which units: an array job gives its index to all programs, so a part that was asked for goes before it."""
    if preferred(ctx, "part", "array", "index") != "index" and (share := share_of(ctx, options)) is not None:
        return slice(share[0], None, share[1])
    if options["index"] is None:
        what = "The unit to do, counted from 0; or --part 0/100 for a share of all."
        raise missing("--index 0", what, *variables(recipe.name, "index", ARRAY_INDEX))
    return options["index"]


def _pixels(recipe: Recipe, options: Options) -> StorageOptions:
    """How the source's files are reached: as the recipe has it, but for what the user says."""
    known = recipe.pixels
    if options["unsigned"]:
        return storage_of(options["endpoint"], options["region"] or known.region, options["profile"], unsigned=True)
    given = {name: options[name] for name in ("endpoint", "region", "profile", "requester_pays") if options[name] is not None}
    if options["profile"] is not None:
        given |= {"unsigned": False}
    if options["sign"] is not None:
        given |= {"signer": "planetary-computer" if options["sign"] else None}
    return replace(known, **given)


def command_named(name: str) -> click.Command:
    """The command of a recipe."""
    from xchip.processors.registry import find

    return command_of(find(name))

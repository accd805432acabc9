"""Settings from several places: the command line before XCHIP_*, and that before the variables of stacchip and AWS Batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import click

ARRAY_INDEX = "AWS_BATCH_JOB_ARRAY_INDEX"


class Missing(click.ClickException):
    """A setting without which nothing can be done: wrong usage, said in one line."""

    exit_code = 2


def missing(example: str, what: str, *variables: str, given: str | None = None) -> Missing:
    """The error of a setting that nobody gave; ``example`` is how to give it, beginning with its name, or ``given`` is."""
    return Missing(f"no {example.split()[0]}: give it, as in {given or example}, or set {' or '.join(variables)}. {what}")


def variables(command: str, name: str, *others: str) -> list[str]:
    """The variables of an option, the strongest first."""
    return [f"XCHIP_{command}_{name}".upper().replace("-", "_"), *others]


def also_from(**others: str) -> Callable[[click.Command], click.Command]:
    """Let parameters of a command, by their names, come from variables of other programs too; ``--help`` shows them."""

    def decorate(command: click.Command) -> click.Command:
        known = {parameter.name: parameter for parameter in command.params}
        for name, other in others.items():
            parameter = known[name]
            parameter.envvar = variables(str(command.name), name, other)
            if isinstance(parameter, click.Option):
                parameter.show_envvar = True
        return command

    return decorate


def names_of(ctx: click.Context, name: str) -> Sequence[str]:
    """The variables of a parameter, as `missing` takes them."""
    parameter = next(one for one in ctx.command.params if one.name == name)
    own = parameter.envvar
    return variables(str(ctx.info_name), name) if own is None else [own] if isinstance(own, str) else own


def from_command_line(ctx: click.Context, name: str) -> bool:
    """Whether a parameter was given there."""
    return ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def strongest(ctx: click.Context, *names: str) -> str | None:
    """Of parameters that exclude each other, the one from the strongest place, there the first; None where none was given.

    Raises
    ------
    click.UsageError
        If the command line has several.
    """
    ranks = {name: rank for name in names if (rank := _rank(ctx, name)) is not None}
    if sum(rank == 0 for rank in ranks.values()) > 1:
        told = [_written(ctx, name) for name, rank in ranks.items() if rank == 0]
        raise click.UsageError(f"{' and '.join(told)} exclude each other.")
    return min(ranks, key=ranks.__getitem__, default=None)


def _rank(ctx: click.Context, name: str) -> int | None:
    """0: from the command line; 1: from our own variable; 2: from that of another program; None: not given."""
    if ctx.params[name] is None or ctx.params[name] is False:
        return None
    if from_command_line(ctx, name):
        return 0
    if ctx.get_parameter_source(name) is not click.core.ParameterSource.ENVIRONMENT:
        return None
    return 1 if os.environ.get(names_of(ctx, name)[0]) else 2


def _written(ctx: click.Context, name: str) -> str:
    parameter = next(one for one in ctx.command.params if one.name == name)
    return max(parameter.opts, key=len) if isinstance(parameter, click.Option) else str(parameter.human_readable_name)


def place_of(ctx: click.Context, options: dict[str, Any], folder: str, bucket: str, what: str) -> str:
    """Where something goes, by an option for a folder or URL and another one for a bucket.

    Raises
    ------
    Missing
        If neither is given.
    """
    name = strongest(ctx, folder, bucket)
    if name is None:
        raise missing(f"--{folder} s3://bucket/folder", what, *names_of(ctx, folder), *names_of(ctx, bucket))
    value = str(options[name])
    return url_of_bucket(value) if name == bucket else value


def url_of_bucket(name: str) -> str:
    """``my-bucket`` -> ``s3://my-bucket``; URLs and paths that begin with / or . stay as they are."""
    return name if "://" in name or name.startswith(("/", ".")) else f"s3://{name}"

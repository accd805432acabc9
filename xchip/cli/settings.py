"""Precedence of settings: the command line, then XCHIP_* variables, then the variables of stacchip and AWS Batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import click

from xchip.cli.options import Options

ARRAY_INDEX = "AWS_BATCH_JOB_ARRAY_INDEX"


class Missing(click.ClickException):
    """A required setting is missing: a usage error on one line."""

    exit_code = 2


def missing(example: str, what: str, *variables: str, given: str | None = None) -> Missing:
    """Return the error of a missing setting, from an example that starts with its name, a description and its variables.

    ``given`` is the example of an argument, which is written without its name.
    """
    return Missing(f"no {example.split()[0]}: give it, as in {given or example}, or set {' or '.join(variables)}. {what}")


def variables(command: str, name: str, *others: str) -> list[str]:
    """Return the environment variables of an option, in order of precedence."""
    return [f"XCHIP_{command}_{name}".upper().replace("-", "_"), *others]


def also_read(**others: str) -> Callable[[click.Command], click.Command]:
    """Read parameters of a command from variables of other programs too: parameter=VARIABLE. ``--help`` shows the variables."""

    def decorate(command: click.Command) -> click.Command:
        parameters = {parameter.name: parameter for parameter in command.params}
        for name, variable in others.items():
            parameter = parameters[name]
            parameter.envvar = variables(str(command.name), name, variable)
            if isinstance(parameter, click.Option):
                parameter.show_envvar = True
        return command

    return decorate


def parameter_of(ctx: click.Context, name: str) -> click.Parameter:
    """Return a parameter of the command by its name."""
    return next(parameter for parameter in ctx.command.params if parameter.name == name)


def variables_of(ctx: click.Context, name: str) -> Sequence[str]:
    """Return the environment variables of a parameter, in order of precedence."""
    declared = parameter_of(ctx, name).envvar
    if declared is None:
        return variables(str(ctx.info_name), name)
    return [declared] if isinstance(declared, str) else declared


def from_command_line(ctx: click.Context, name: str) -> bool:
    """Whether the command line gives a parameter."""
    return ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def preferred(ctx: click.Context, *names: str) -> str | None:
    """Return which of several exclusive parameters has precedence, or None if none of them is given.

    Raises
    ------
    click.UsageError
        If the command line gives several.
    """
    ranks = {name: rank for name in names if (rank := _rank(ctx, name)) is not None}
    if sum(rank == 0 for rank in ranks.values()) > 1:
        flags = [_flag(ctx, name) for name, rank in ranks.items() if rank == 0]
        raise click.UsageError(f"{' and '.join(flags)} exclude each other.")
    return min(ranks, key=ranks.__getitem__, default=None)


def _rank(ctx: click.Context, name: str) -> int | None:
    """0: from the command line; 1: from an XCHIP_* variable; 2: from a variable of another program; None: not given."""
    if ctx.params[name] is None or ctx.params[name] is False:
        return None
    if from_command_line(ctx, name):
        return 0
    if ctx.get_parameter_source(name) is not click.core.ParameterSource.ENVIRONMENT:
        return None
    return 1 if os.environ.get(variables_of(ctx, name)[0]) else 2


def _flag(ctx: click.Context, name: str) -> str:
    parameter = parameter_of(ctx, name)
    return max(parameter.opts, key=len) if isinstance(parameter, click.Option) else str(parameter.human_readable_name)


def output_of(ctx: click.Context, options: Options, folder: str, bucket: str, what: str) -> str:
    """Return the location of an output, from an option for a folder or URL or from an option for a bucket.

    Raises
    ------
    Missing
        If neither is given.
    """
    name = preferred(ctx, folder, bucket)
    if name is None:
        raise missing(f"--{folder} s3://bucket/folder", what, *variables_of(ctx, folder), *variables_of(ctx, bucket))
    value = str(options[name])
    return url_of_bucket(value) if name == bucket else value


def url_of_bucket(name: str) -> str:
    """``my-bucket`` -> ``s3://my-bucket``; URLs and paths that begin with / or . stay as they are."""
    return name if "://" in name or name.startswith(("/", ".")) else f"s3://{name}"

"""Types and groups of options that commands share, and how errors and warnings are shown."""

from __future__ import annotations

import importlib
import logging
import os
import re
import shlex
import shutil
import signal
import sys
import textwrap
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from xchip.cli.commands import ENTRIES, SECTIONS

if TYPE_CHECKING:
    from xchip.io.storage import StorageOptions

ERROR, PROBLEMS, INTERRUPTED = 1, 3, 130
"""Exit status: the command failed; it ran, but items failed or problems were found; the user interrupted it."""

BUCKET_OPTIONS = ("endpoint", "region", "profile")
"""Options that locate a bucket."""

FRACTION = click.FloatRange(0, 1)

_CLIENTS = {"aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "pystac_client", "requests", "urllib3"}
"""Packages whose errors report problems with a server, the network or credentials."""

Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]

Options: TypeAlias = dict[str, Any]
"""Values of a command's options, by parameter name; click does not type them."""

SignalHandler: TypeAlias = Callable[[int, FrameType | None], object]


class Commands(click.Group):
    """Load commands when they are used, and list them in sections.

    An error that the user can act on is shown as one line; an error of xchip itself keeps its traceback.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list({**ENTRIES, **self.commands})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = ENTRIES.get(cmd_name)
        if entry is not None and cmd_name not in self.commands:
            module = importlib.import_module(f"xchip.cli.{entry.module}")
            command: click.Command = getattr(module, cmd_name.replace("-", "_"), None) or module.command_named(cmd_name)
            command.epilog = f"\b\nExample:\n  {entry.example}"  # \b keeps click from wrapping the line
            self.add_command(command)
        return self.commands.get(cmd_name)

    def load_all(self) -> dict[str, click.Command]:
        """Return all commands by name."""
        ctx = click.Context(self)
        return {name: command for name in self.list_commands(ctx) if (command := self.get_command(ctx, name)) is not None}

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        widest = max(map(len, ENTRIES))
        sections = {title: {name: entry.summary for name, entry in entries.items()} for title, entries in SECTIONS.items()}
        more = {name: command.get_short_help_str(1000) for name, command in self.commands.items() if name not in ENTRIES}
        for title, summaries in (sections | ({"More": more} if more else {})).items():
            with formatter.section(title):
                # The whole first sentence; click would cut it to one line.
                formatter.write_dl([(name.ljust(widest), summary) for name, summary in summaries.items()])

    def invoke(self, ctx: click.Context) -> object:
        try:
            # Job schedulers send SIGTERM and wait a little, which leaves time to record finished work and clean up, as on Ctrl-C.
            with handling(signal.SIGTERM, signal.default_int_handler), nullcontext() if ctx.params["debug"] else plain_warnings():
                return super().invoke(ctx)
        except (ValueError, OSError, ImportError) as error:
            if ctx.params["debug"] or (isinstance(error, BrokenPipeError) and _is_output_closed(error)):
                raise  # click exits silently when the reader, such as head, has closed the pipe
            raise click.ClickException(self._in_flags(ctx, one_line(error))) from error
        except Exception as error:
            if ctx.params["debug"] or not _is_client_error(error):
                raise
            raise click.ClickException(f"can't reach the storage or server: {one_line(error)}") from error
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(INTERRUPTED)

    def _in_flags(self, ctx: click.Context, message: str) -> str:
        command = self.commands.get(ctx.invoked_subcommand or "")
        return message if command is None else in_flags(message, command)


def in_flags(message: str, command: click.Command) -> str:
    """Replace keywords in a message of a library function by parameters of a command: ``harmonize=True`` -> ``--harmonize``.

    Keywords that the command does not have stay as they are. So do paths and values of the user, such as ``'sensor=naip'``.

    Examples
    --------
    >>> @click.command()
    ... @click.option("--harmonize", is_flag=True)
    ... @click.option("--max-nodata", type=float)
    ... def export(harmonize, max_nodata): ...
    >>> in_flags("pass harmonize=True or max_nodata=0.5; sensor= is given", export)
    'pass --harmonize or --max-nodata 0.5; sensor= is given'
    """
    parameters = {parameter.name: parameter for parameter in command.params}

    def flag(match: re.Match[str]) -> str:
        option = parameters.get(match["name"])
        value = match["value"]
        if isinstance(option, click.Argument) and not value:
            return option.human_readable_name.translate({ord("["): None, ord("]"): None})
        if not isinstance(option, click.Option) or option.name in _DIFFERENT:
            return match[0]
        name = max(option.opts, key=len)
        if value == "None" or (option.is_flag and value == "False"):
            return max(option.secondary_opts, key=len, default=f"no {name}")
        if option.is_flag:
            return name if value in ("", "True") else match[0]
        return f"{name} {shlex.quote(value.strip(_QUOTES))}" if value else name

    return _KEYWORD.sub(flag, message)


_DIFFERENT = {"job"}
"""Keywords that differ from the option of the same name: an export records the cubes per job as ``job``, --job is a number."""
_QUOTES = "'\""
_KEYWORD = re.compile(
    r"""(?<![\w.=&?/\\'"-])                          # not within a path, a URL or a quoted value of the user
    (?P<name>[a-z][a-z_]*)=
    (?P<value>(?:'[^']*'|"[^"]*"|-?[\w.]*\w)?)      # a plain value, or none
    (?![\w(\[{=/]|\.\w)                             # not a call, a collection or a path""",
    re.VERBOSE,
)
"""A keyword argument in a message."""


@contextmanager
def handling(number: int, handler: SignalHandler) -> Iterator[None]:
    """Handle a signal with ``handler`` inside the block."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def _is_output_closed(error: BrokenPipeError) -> bool:
    """Whether `click.echo` raised the error: the output is closed, rather than a connection."""
    return any(frame.f_code is click.echo.__code__ for frame, _ in traceback.walk_tb(error.__traceback__))


def _is_client_error(error: Exception) -> bool:
    """Whether a library that talks to servers raised the error. Missing credentials, say, are neither OSError nor ValueError."""
    return type(error).__module__.partition(".")[0] in _CLIENTS


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Show only the message of a warning, without its line of code; warnings of the log "xchip" too."""
    before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *_: object) -> None:
        if not issubclass(category, DeprecationWarning | PendingDeprecationWarning):  # of a library, for its developers
            show_warning(message)

    warnings.showwarning = show  # type: ignore[assignment]  # the place of a warning is not shown
    log, handler = logging.getLogger("xchip"), _WarningHandler(logging.WARNING)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        warnings.showwarning = before


class _WarningHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        show_warning(record.getMessage())


def show_warning(message: object) -> None:
    """Write a warning to stderr: wrapped on a terminal, elsewhere on one line, for tools that read logs."""
    text = " ".join(f"Warning: {message}".split())
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns
        text = textwrap.fill(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    click.echo(text, err=True)


def one_line(error: BaseException) -> str:
    """Return the message of an error on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def check_writable(ctx: click.Context | None, param: click.Parameter | None, value: str | None) -> str | None:
    """Return the path of an output, checked before any work is done. URLs are not checked.

    Raises
    ------
    NotADirectoryError
        If the folder is a file.
    PermissionError
        If the folder is not check_writable.
    """
    if not value or "://" in value:
        return value
    path = os.path.abspath(os.path.expanduser(value))
    folder = path
    while not os.path.exists(folder):  # missing folders are created
        folder = os.path.dirname(folder)
    if folder == path and not os.path.isdir(path):  # an existing file is replaced
        if os.access(path, os.W_OK):
            return value
        folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise NotADirectoryError(f"can't write {value!r}: {folder!r} is a file, not a folder; give another path")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"can't write {value!r}: no permission to write in the folder {folder!r}; give another path")
    return value


class ChipSizeType(click.ParamType):  # type: ignore[type-arg]
    """``256``, or ``256x512`` for a height and a width."""

    name = "pixels"

    def convert(
        self, value: str | int | tuple[int, int], param: click.Parameter | None, ctx: click.Context | None
    ) -> int | tuple[int, int]:
        if not isinstance(value, str):
            return value
        lengths = value.lower().split("x")
        if len(lengths) > 2 or not all(length.strip().isdigit() for length in lengths):
            self.fail(
                f"{value!r} is not a chip size; use a number of pixels, such as 256, or HEIGHTxWIDTH, such as 256x512", param, ctx
            )
        height, width = int(lengths[0]), int(lengths[-1])
        return (height, width) if len(lengths) == 2 else height


class Share(click.ParamType):  # type: ignore[type-arg]
    """``3/10``: the fourth of ten shares, because they are counted from 0."""

    name = "i/n"

    def convert(self, value: str | tuple[int, int], param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if not isinstance(value, str):
            return value
        number, _, count = value.partition("/")
        if not (number.isdigit() and count.isdigit() and int(number) < int(count)):
            self.fail(f"{value!r} is not a share; use I/N with 0 <= I < N: 0/10 is the first of ten, 9/10 the last", param, ctx)
        return int(number), int(count)


def chained(*options: Decorator) -> Decorator:
    """Return one decorator that adds several options, in the order in which the help shows them."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


archive_access = chained(
    click.option("--endpoint", metavar="URL", help="S3 server of the archive.  [default: Amazon's]"),
    click.option("--region", help="AWS region of the archive."),
    click.option("--profile", help="Profile in the AWS configuration for the archive."),
    click.option("--unsigned", is_flag=True, help="Send no credentials, for a public bucket."),
)
"""Options for access to the archive that a command reads."""


file_access = chained(
    click.option("--endpoint", metavar="URL", help="S3 server of the items' files.  [default: Amazon's]"),
    click.option("--region", help="AWS region of the items' files."),
    click.option("--profile", help="Profile in the AWS configuration for the items' files."),
    click.option("--unsigned", is_flag=True, help="Send no credentials for the items' files, in public buckets."),
)
"""Options for access to the files of items."""

archive_location = chained(
    click.option("--archive-endpoint", metavar="URL", help="S3 server of the archive.  [default: --endpoint]"),
    click.option("--archive-region", help="AWS region of the archive.  [default: --region]"),
    click.option("--archive-profile", help="Profile in the AWS configuration for the archive.  [default: --profile]"),
)
"""Options for access to an archive, in commands that have `file_access` too."""


def storage_of(
    endpoint: str | None, region: str | None, profile: str | None, unsigned: bool = False, **more: Any
) -> StorageOptions:
    """Return storage options from the options of a command."""
    from xchip.io.storage import StorageOptions

    return StorageOptions(endpoint=endpoint, region=region, profile=profile, unsigned=unsigned, **more)


def archive_of(options: Options) -> StorageOptions:
    """Return storage options of the archive, for a command that has separate options for the items' files."""
    return storage_of(**{name: options[f"archive_{name}"] or options[name] for name in BUCKET_OPTIONS})


def show_progress(unit: str, count: int, total: int) -> None:
    """Write the progress of a job to stderr, over the line of the last call."""
    click.echo(f"\r{count:,} of {total:,} {unit} ", err=True, nl=count == total)

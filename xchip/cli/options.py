"""What commands share: kinds of values, groups of options, and how mistakes are shown."""

from __future__ import annotations

import importlib
import logging
import os
import re
import shutil
import signal
import sys
import textwrap
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import click

from xchip.cli.commands import ENTRIES, SECTIONS

if TYPE_CHECKING:
    from xchip.io.storage import StorageOptions

ERROR, PROBLEMS, INTERRUPTED = 1, 3, 130
"""Exit status: nothing could be done; it was done, but not for all items; the user stopped it."""

PLACE = ("endpoint", "region", "profile")
"""Options that say where a bucket is."""

FRACTION = click.FloatRange(0, 1)

_CLIENTS = {"aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "pystac_client", "requests", "urllib3"}
"""Packages whose errors tell what is wrong with a server, a network or credentials."""

Command = TypeVar("Command", bound=Callable[..., Any])


class Commands(click.Group):
    """Load commands when they are used, and list them in sections.

    A user's mistake is shown as one line; a mistake of xchip keeps its traceback.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list({**ENTRIES, **self.commands})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = ENTRIES.get(cmd_name)
        if entry is not None and cmd_name not in self.commands:
            module = importlib.import_module(f"xchip.cli.{entry.module}")
            command: click.Command = getattr(module, cmd_name.replace("-", "_"), None) or module.command_named(cmd_name)
            command.epilog = f"\b\nExample:\n  {entry.example}"  # \b: the line is not broken
            self.add_command(command)
        return self.commands.get(cmd_name)

    def load_all(self) -> dict[str, click.Command]:
        """All commands by name."""
        ctx = click.Context(self)
        return {name: command for name in self.list_commands(ctx) if (command := self.get_command(ctx, name)) is not None}

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        widest = max(map(len, ENTRIES))
        sections = {title: {name: entry.summary for name, entry in entries.items()} for title, entries in SECTIONS.items()}
        more = {name: command.get_short_help_str(1000) for name, command in self.commands.items() if name not in ENTRIES}
        for title, summaries in (sections | ({"More": more} if more else {})).items():
            with formatter.section(title):
                # The whole first sentence, which may go on in the next line.
                formatter.write_dl([(name.ljust(widest), summary) for name, summary in summaries.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            # Schedulers of jobs send SIGTERM and wait a little: time to record what is done and to tidy up, as after Ctrl-C.
            with handling(signal.SIGTERM, signal.default_int_handler), nullcontext() if ctx.params["debug"] else plain_warnings():
                return super().invoke(ctx)
        except (ValueError, OSError, ImportError) as error:
            if ctx.params["debug"] or (isinstance(error, BrokenPipeError) and _nobody_reads(error)):
                raise  # click ends quietly where a command such as head has read enough
            raise click.ClickException(self._in_flags(ctx, one_line(error))) from error
        except Exception as error:
            if ctx.params["debug"] or not _is_of_a_client(error):
                raise
            raise click.ClickException(f"storage or server can't be reached: {one_line(error)}") from error
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(INTERRUPTED)

    def _in_flags(self, ctx: click.Context, message: str) -> str:
        """The message of a library function, with the flags of the command in place of keywords."""
        command = self.commands.get(ctx.invoked_subcommand or "")
        return message if command is None else in_flags(message, command)


def in_flags(message: str, command: click.Command) -> str:
    """Replace keywords in a message by the flags of a command: ``harmonize=True`` becomes ``--harmonize``.

    Keywords that the command has no flag for stay as they are.

    Examples
    --------
    >>> @click.command()
    ... @click.option("--harmonize", is_flag=True)
    ... @click.option("--max-nodata", type=float)
    ... def export(harmonize, max_nodata): ...
    >>> in_flags("pass harmonize=True or max_nodata=0.5; sensor= is given", export)
    'pass --harmonize or --max-nodata 0.5; sensor= is given'
    """
    flags = {option.name: option for option in command.params if isinstance(option, click.Option)}

    def flag(match: re.Match[str]) -> str:
        option = flags.get(match["name"])
        value = match["value"]
        if option is None:
            return match[0]
        name = max(option.opts, key=len)
        if option.is_flag:
            names = {"True": name, "": name, "False": max(option.secondary_opts, key=len, default=f"no {name}")}
            return names.get(value, match[0])
        return name if not value else f"{name} {value.strip(chr(39) + chr(34))}"

    return _KEYWORD.sub(flag, message)


_KEYWORD = re.compile(r"(?<![\w.=&?-])(?P<name>[a-z][a-z_]*)=(?P<value>(?:'[^']*'|\"[^\"]*\"|[\w.]*\w)?)(?![\w(\[{=])")
"""A keyword with a plain value, or without one, in a message."""


@contextmanager
def handling(number: int, handler: Any) -> Iterator[None]:
    """What is done at a signal, inside the block."""
    if threading.current_thread() is not threading.main_thread():  # which alone may say
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def _nobody_reads(error: BrokenPipeError) -> bool:
    """Whether it was the output that broke, and not a connection: `click.echo` raised it."""
    return any(frame.f_code is click.echo.__code__ for frame, _ in traceback.walk_tb(error.__traceback__))


def _is_of_a_client(error: Exception) -> bool:
    """Whether it comes from a library that talks to servers: missing credentials, say, are neither OSError nor ValueError."""
    return type(error).__module__.partition(".")[0] in _CLIENTS


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Show warnings by what they say, without the line of code that they come from; those of the log "xchip" too."""
    before = warnings.showwarning
    warnings.showwarning = lambda message, *place: say_warning(message)
    log, handler = logging.getLogger("xchip"), _LogToUsers(logging.WARNING)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        warnings.showwarning = before


class _LogToUsers(logging.Handler):
    """Shows records of a log as warnings."""

    def emit(self, record: logging.LogRecord) -> None:
        say_warning(record.getMessage())


def say_warning(message: object) -> None:
    """Show a warning: on a terminal in lines that end between words, elsewhere in one line, as tools that read logs like it."""
    text = " ".join(f"Warning: {message}".split())
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns
        text = textwrap.fill(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    click.echo(text, err=True)


def one_line(error: BaseException) -> str:
    """The message of an error, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def writable(ctx: click.Context | None, param: click.Parameter | None, value: str | None) -> str | None:
    """An option's path of what is to be written, refused before any work is done if it can't be; URLs are not looked at.

    Raises
    ------
    OSError
        If the folder is none, or if nothing may be written there.
    """
    if not value or "://" in value:
        return value
    path = os.path.abspath(os.path.expanduser(value))
    place = path
    while not os.path.exists(place):  # folders that are missing are made
        place = os.path.dirname(place)
    if place == path and not os.path.isdir(path):  # a file, which is replaced
        if os.access(path, os.W_OK):
            return value
        place = os.path.dirname(path)
    if not os.path.isdir(place):
        raise NotADirectoryError(f"can't write {value!r}: {place!r} is a file and no folder; give another path")
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(f"can't write {value!r}: you may not write in the folder {place!r}; give another path")
    return value


class ChipSizeType(click.ParamType):  # type: ignore[type-arg]
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


class Share(click.ParamType):  # type: ignore[type-arg]
    """``3/10``: the fourth of ten shares, for they are counted from 0."""

    name = "i/n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        number, _, of = value.partition("/")
        if not (number.isdigit() and of.isdigit() and int(number) < int(of)):
            self.fail(f"{value!r} is no share, such as 0/10, the first of ten, or 9/10, the last", param, ctx)
        return int(number), int(of)


def chained(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, in the order in which help shows them."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


archive_access = chained(
    click.option("--endpoint", metavar="URL", help="S3 server of the archive, where it is not Amazon's."),
    click.option("--region", help="Its region."),
    click.option("--profile", help="Its profile in the AWS configuration."),
    click.option("--unsigned", is_flag=True, help="Send no credentials, for a public bucket."),
)
"""How the archive of a command that reads one is reached."""


def storage_of(
    endpoint: str | None, region: str | None, profile: str | None, unsigned: bool = False, **more: Any
) -> StorageOptions:
    """Storage options from command line options."""
    from xchip.io.storage import StorageOptions

    return StorageOptions(endpoint=endpoint, region=region, profile=profile, unsigned=unsigned, **more)


def archive_of(options: dict[str, Any]) -> StorageOptions:
    """How the archive is reached, of a command whose items' files may be elsewhere."""
    return storage_of(**{name: options[f"archive_{name}"] or options[name] for name in PLACE})


def say_progress(what: str, count: int, of: int) -> None:
    """How far a job is, on one line of a terminal that each call writes anew."""
    click.echo(f"\r{count:,} of {of:,} {what} ", err=True, nl=count == of)

"""Where and how much of a job is done: a share of it, and on which workers; and how it stops."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import click

from xchip.cli.options import INTERRUPTED, PROBLEMS, Share, chained
from xchip.cli.settings import strongest

share_options = chained(
    click.option("--part", type=Share(), metavar="I/N", help="Do only the I-th of N parts of the work, counted from 0."),
    click.option("--array", is_flag=True, help="Take the part from the variables of an AWS Batch array job."),
)

worker_options = chained(
    click.option("--scheduler", metavar="ADDRESS", help="Work on the Dask cluster of this scheduler."),
    click.option("--workers", type=click.IntRange(1), help="Work in so many processes of this machine."),
    click.option(
        "--threads", type=click.IntRange(1), help="Work on so many threads of one process.  [default: one a processor]",
    ),
    click.option("--attempts", type=click.IntRange(1), default=5, show_default=True, help="How often a file is tried."),
)  # fmt: skip


def take(options: dict[str, Any], names: str) -> dict[str, Any]:
    """Some of the options."""
    return {name: options[name] for name in names.split()}


def share_of(ctx: click.Context, options: dict[str, Any]) -> tuple[int, int] | None:
    """(i, n): which part of the work to do, by what the strongest place says; None: all of it."""
    if strongest(ctx, "part", "array") != "array":
        return options["part"]
    names = ("AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE")
    values = [os.environ.get(name) for name in names]
    missing = [name for name, value in zip(names, values, strict=True) if not value]
    if missing:
        raise click.UsageError(f"--array is for children of an AWS Batch array job, but {' and '.join(missing)} is not set.")
    share: tuple[int, int] = Share().convert("/".join(map(str, values)), None, None)
    return share


def one_crew(ctx: click.Context, options: dict[str, Any]) -> dict[str, Any]:
    """The options with one answer to who works: the one from the strongest place; several on the command line are refused."""
    crews = ("scheduler", "workers", "threads")
    chosen = strongest(ctx, *crews)
    return {**options, **{name: None for name in crews if name != chosen}}


@contextmanager
def cluster_of(options: dict[str, Any]) -> Iterator[Any]:
    """A client of the cluster that was asked for; None for threads of this process."""
    if options["scheduler"] is not None:
        from distributed import Client

        with Client(options["scheduler"]) as client:
            yield client
    elif options["workers"] is not None:
        from xchip.archive.cluster import local_cluster

        with ExitStack() as stack:
            # A terminal sends Ctrl-C to all processes. Workers inherit that it is ignored: they stop when this process says so.
            with handling(signal.SIGINT, signal.SIG_IGN):
                client = stack.enter_context(local_cluster(options["workers"]))
            yield client
    else:
        yield None


@contextmanager
def stoppable(ctx: click.Context, options: dict[str, Any], output: str) -> Iterator[Any]:
    """`cluster_of`, for work that can be stopped and gone on with: what is done is in ``output``."""
    try:
        # Schedulers of jobs send SIGTERM and wait a little: time enough to record what is done, as after Ctrl-C.
        with handling(signal.SIGTERM, signal.default_int_handler), cluster_of(options) as client:
            yield client
    except KeyboardInterrupt:
        click.echo(f"Interrupted. What is done is kept in {output}: the same command goes on from there.", err=True)
        ctx.exit(INTERRUPTED)


def conclude(ctx: click.Context, report: Any, where: str) -> None:
    """Say what was done; if some failed, also ``where`` they are listed, and end with the status of that."""
    click.echo(str(report))
    if report.failed:
        click.echo(where, err=True)
        ctx.exit(PROBLEMS)


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

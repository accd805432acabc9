"""Where and how much of a job is done: a share of it, and on which workers; and how it stops."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import click

from xchip.cli.options import INTERRUPTED, PROBLEMS, Share, chained, handling
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
        from xchip.io.cluster import local_cluster

        with ExitStack() as stack:
            # A terminal sends Ctrl-C to all processes: workers don't get it, they stop when this process says so. And a cluster
            # that is half started can't be stopped.
            with held_back():
                client = stack.enter_context(local_cluster(options["workers"]))
            yield client
    else:
        yield None


@contextmanager
def stoppable(ctx: click.Context, options: dict[str, Any], output: str) -> Iterator[dict[str, Any]]:
    """For work that can be stopped and gone on with, its results being in ``output``: keywords that say who does it, and how."""
    try:
        with cluster_of(options) as client:
            yield {
                "client": client,
                "workers": options["threads"],
                "progress": sys.stderr,
                **take(options, "attempts retry_failed"),
            }
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
def held_back() -> Iterator[None]:
    """Signals to stop that come inside the block are heeded at its end; processes started inside never get that of Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():  # which alone hears signals
        yield
        return
    came: list[int] = []

    def note(number: int, frame: Any) -> None:
        came.append(number)

    with handling(signal.SIGINT, note), handling(signal.SIGTERM, note), _blocked(signal.SIGINT):
        yield
    for number in came[:1]:
        signal.raise_signal(number)


@contextmanager
def _blocked(number: int) -> Iterator[None]:
    """Threads and processes that are started inside the block don't get the signal, where the system has such a thing."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    # This helper of multiprocessing lets the signal through again when it starts, and with it the first process.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

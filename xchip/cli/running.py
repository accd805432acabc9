"""Run a job: its share of the work, its workers, and what happens when it is interrupted."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, TextIO, TypedDict

import click

from xchip.cli.options import INTERRUPTED, PROBLEMS, Options, Share, chained, handling
from xchip.cli.settings import preferred

if TYPE_CHECKING:
    import distributed

    from xchip.export.report import ExportReport
    from xchip.indexing.archive.report import BuildReport

share_options = chained(
    click.option("--part", type=Share(), metavar="I/N", help="Do only the I-th of N parts of the work, counted from 0."),
    click.option("--array", is_flag=True, help="Do the part of this child of an AWS Batch array job."),
)

executor_options = chained(
    click.option("--scheduler", metavar="ADDRESS", help="Run on the Dask cluster of this scheduler."),
    click.option("--workers", type=click.IntRange(1), help="Number of processes on this machine."),
    click.option(
        "--threads", type=click.IntRange(1), help="Number of threads in one process.  [default: one per processor]",
    ),
)  # fmt: skip

worker_options = chained(
    executor_options,
    click.option("--attempts", type=click.IntRange(1), default=5, show_default=True, help="Maximum number of attempts per file."),
)


def pick(options: Options, names: str) -> Options:
    """Return the options with these names, which are separated by spaces."""
    return {name: options[name] for name in names.split()}


def share_of(ctx: click.Context, options: Options) -> tuple[int, int] | None:
    """Return (i, n), the part of the work to do, from the setting that has precedence; None: all of the work."""
    if preferred(ctx, "part", "array") != "array":
        return options["part"]
    names = ("AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE")
    values = [os.environ.get(name) for name in names]
    missing = [name for name, value in zip(names, values, strict=True) if not value]
    if missing:
        raise click.UsageError(f"--array is for children of an AWS Batch array job, but {' and '.join(missing)} is not set.")
    return Share().convert("/".join(map(str, values)), None, None)


def single_executor(ctx: click.Context, options: Options) -> Options:
    """Return the options with only one of scheduler, workers and threads: the option that has precedence."""
    executors = ("scheduler", "workers", "threads")
    chosen = preferred(ctx, *executors)
    return {**options, **{name: None for name in executors if name != chosen}}


@contextmanager
def cluster_of(options: Options) -> Iterator[distributed.Client | None]:
    """Connect to the requested cluster, or start one; None for threads of this process."""
    if options["scheduler"] is not None:
        from distributed import Client

        with Client(options["scheduler"]) as client:
            yield client
    elif options["workers"] is not None:
        from xchip.io.cluster import local_cluster

        with ExitStack() as stack:
            # A terminal sends Ctrl-C to all processes. Workers ignore it and stop when this process stops them. A cluster that
            # is half started can't be stopped.
            with signals_delayed():
                client = stack.enter_context(local_cluster(options["workers"]))
            yield client
    else:
        yield None


class RunOptions(TypedDict):
    """Keywords of `xchip.build_index`, `xchip.export_chips` and `process` that say how a job runs."""

    client: distributed.Client | None
    workers: int | None
    progress: TextIO
    attempts: int
    retry_failed: bool


@contextmanager
def resumable(ctx: click.Context, options: Options, output: str) -> Iterator[RunOptions]:
    """Run a job that can be interrupted and resumed: yield the keywords of its function. Finished work is in ``output``."""
    try:
        with cluster_of(options) as client:
            yield {
                "client": client,
                "workers": options["threads"],
                "progress": sys.stderr,
                "attempts": options["attempts"],
                "retry_failed": options["retry_failed"],
            }
    except KeyboardInterrupt:
        click.echo(f"Interrupted. Finished work is kept in {output}; run the same command to resume.", err=True)
        ctx.exit(INTERRUPTED)


def conclude(ctx: click.Context, report: BuildReport | ExportReport, hint: str) -> None:
    """Print a report; if there are failures, print the ``hint`` too and exit with status 3."""
    click.echo(str(report))
    if report.failed:
        click.echo(hint, err=True)
        ctx.exit(PROBLEMS)


@contextmanager
def signals_delayed() -> Iterator[None]:
    """Delay SIGINT and SIGTERM to the end of the block; processes started inside it never get SIGINT."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield
        return
    received: list[int] = []

    def record(number: int, frame: FrameType | None) -> None:
        received.append(number)

    with handling(signal.SIGINT, record), handling(signal.SIGTERM, record), _blocked(signal.SIGINT):
        yield
    for number in received[:1]:
        signal.raise_signal(number)


@contextmanager
def _blocked(number: int) -> Iterator[None]:
    """Block a signal for threads and processes that are started inside the block, where the system can."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    # When multiprocessing starts its resource tracker, it unblocks the signal, and the first worker process would inherit that.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

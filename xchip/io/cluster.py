"""Dask clusters: start one on this machine, or find the client to use."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import distributed

MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20)}
"""Environment of worker processes.

Dask's nanny sets ``MALLOC_TRIM_THRESHOLD_``. glibc then no longer adapts the size from which it maps memory directly: each block
of a raster is mapped and unmapped, which costs three times the work itself. 32 MiB is the largest value that glibc accepts.
"""


@contextmanager
def local_cluster(workers: int, *, memory_limit: str | float | None = "auto") -> Iterator[distributed.Client]:
    """Start ``workers`` single-threaded processes on this machine, with memory settings that suit rasters.

    Examples
    --------
    >>> with local_cluster(2) as client:  # doctest: +SKIP
    ...     xchip.build_index("items.ndjson", "archive", client=client)
    """
    import dask
    from distributed import Client, LocalCluster

    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    configured = dask.config.get("distributed.nanny.pre-spawn-environ", {})
    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ": {**configured, **MALLOC}}),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # any free port: the default port may be in use
            memory_limit=memory_limit,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def connected_client() -> distributed.Client | None:
    """Return the default Dask client, if there is one."""
    if "distributed" not in sys.modules:
        return None
    from distributed import default_client

    try:
        return default_client()
    except ValueError:
        return None


@contextmanager
def client_of(client: distributed.Client | str | Literal[False] | None) -> Iterator[distributed.Client | None]:
    """Yield ``client``, or a new client of a scheduler's address. None: the default client, if any. False: no client."""
    if not isinstance(client, str):
        yield connected_client() if client is None else client or None
        return
    from distributed import Client

    with Client(client, set_as_default=False) as connection:
        yield connection


def slots(client: distributed.Client) -> int:
    """Return the number of tasks that the cluster can run now."""
    return sum(client.nthreads().values())


def slow_malloc(client: distributed.Client) -> str | None:
    """Return advice for users whose workers have slow malloc settings; None if no worker has."""
    answers = client.run(_has_slow_malloc, on_error="ignore")
    slow = sum(answer is True for answer in answers.values())
    if not slow:
        return None
    ((name, value),) = MALLOC.items()
    return (
        f"{slow} of {len(answers)} Dask workers run with Dask's own malloc settings, which make reading rasters up to three "
        f"times slower; start them with {name}={value} in their environment, or, before you create a cluster in Python, call "
        f'dask.config.set({{"distributed.nanny.pre-spawn-environ.{name}": "{value}"}})'
    )


def _has_slow_malloc() -> bool:
    """Whether this worker's trim threshold stops glibc from adapting, and no map threshold makes up for it."""
    return sys.platform == "linux" and "MALLOC_TRIM_THRESHOLD_" in os.environ and not (MALLOC.keys() & os.environ.keys())

"""Dask clusters that index: one that xchip starts, and those that others have started."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import distributed

MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20)}
"""Environment of worker processes.

Dask's nanny sets ``MALLOC_TRIM_THRESHOLD_``, and glibc then stops to adapt its threshold for memory that it asks the system
for: each block of a raster is mapped and unmapped anew, which costs three times the work itself. 32 MiB is the largest that
glibc takes.
"""


@contextmanager
def local_cluster(workers: int, *, memory_limit: Any = "auto") -> Iterator[distributed.Client]:
    """A client of ``workers`` processes of one thread each on this machine, with memory settings that suit rasters.

    Examples
    --------
    >>> with local_cluster(2) as client:  # doctest: +SKIP
    ...     xchip.build_index("items.ndjson", "archive", client=client)
    """
    import dask
    from distributed import Client, LocalCluster

    if workers < 1:
        raise ValueError(f"a cluster has 1 worker at least, got {workers}")
    known = dask.config.get("distributed.nanny.pre-spawn-environ", {})
    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ": {**known, **MALLOC}}),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # any free port: the usual one may be taken
            memory_limit=memory_limit,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def connected_client() -> distributed.Client | None:
    """The Dask client that the user has made, if any."""
    if "distributed" not in sys.modules:
        return None
    from distributed import default_client

    try:
        return default_client()
    except ValueError:
        return None


@contextmanager
def client_of(client: distributed.Client | str | Literal[False] | None) -> Iterator[distributed.Client | None]:
    """The client to use: the one given, one for a scheduler's address, the connected one, or none; none if False."""
    if not isinstance(client, str):
        yield connected_client() if client is None else client or None
        return
    from distributed import Client

    with Client(client, set_as_default=False) as made:
        yield made


def slots(client: distributed.Client) -> int:
    """How many tasks the cluster can work on now."""
    return sum(client.nthreads().values())


def slow_malloc(client: distributed.Client) -> str | None:
    """What to tell users whose workers spend their time asking the system for memory; None if they do not."""
    answers = client.run(_slow_malloc, on_error="ignore")
    slow = sum(answer is True for answer in answers.values())
    if not slow:
        return None
    ((name, value),) = MALLOC.items()
    return (
        f"{slow} of {len(answers)} Dask workers run with Dask's own malloc settings, which make reading rasters up to three "
        f"times slower; start them with {name}={value} in their environment, or, before a cluster is made in Python, say "
        f'dask.config.set({{"distributed.nanny.pre-spawn-environ.{name}": "{value}"}})'
    )


def _slow_malloc() -> bool:
    """Whether this worker has the trim threshold set, which stops glibc from adapting, and no threshold of its own."""
    return sys.platform == "linux" and "MALLOC_TRIM_THRESHOLD_" in os.environ and not (MALLOC.keys() & os.environ.keys())

"""How many threads a model on the CPU computes with, where the user has not said so.

Read when torch and tokenizers are imported, so a command calls `choose_threads` before.
"""

from __future__ import annotations

import os

__all__ = ["choose_threads", "free_cores"]


def free_cores() -> int:
    """Cores that this process may run on and that other work leaves free; at least 1."""
    free = round((os.cpu_count() or 1) - os.getloadavg()[0])
    return max(1, min(len(os.sched_getaffinity(0)), free))


def choose_threads() -> None:
    """Leave busy cores alone: a small model is many times slower on threads that wait for them.

    On free cores torch keeps its own number. ``OMP_NUM_THREADS`` and ``MKL_NUM_THREADS`` of the
    user stay as they are.
    """
    # Forks don't warn, and threads that wait sleep.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    given = {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & os.environ.keys()
    free = free_cores()
    if not given and free < len(os.sched_getaffinity(0)):
        os.environ["OMP_NUM_THREADS"] = str(free)

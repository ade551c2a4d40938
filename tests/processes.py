"""Two processes at once, as `accelerate launch` starts them, but forked from one that has imported everything.

A spawned process imports torch and transformers first, ten seconds each; one that is forked here begins at once.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing import forkserver
from typing import Any

import torch.multiprocessing as mp


def on_two(run_rank: Callable[..., None], *args: Any) -> None:
    """Call ``run_rank(rank, *args)`` for the ranks 0 and 1, each in a process of its own; an error of one is raised."""
    multiprocessing.set_forkserver_preload(["tests.conftest", "st_vi.recipes"])
    mp.start_processes(run_rank, args, nprocs=2, start_method="forkserver")


def stop_server() -> None:
    """End the process that others are forked from, as CPython's own tests do."""
    forkserver._forkserver._stop()

"""Processes of their own, forked from one that has imported everything: a spawned one imports for seconds first."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from typing import Any

import torch.multiprocessing as mp


def forked() -> ForkServerContext:
    """A context whose processes begin at once; all tests of a worker share the server."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.helpers.preloaded"])
    return context


def on_two(run_rank: Callable[..., None], *args: Any) -> None:
    """Call ``run_rank(rank, *args)`` for the ranks 0 and 1, each in a process of its own; an error of one is raised."""
    forked()
    mp.start_processes(run_rank, args, nprocs=2, start_method="forkserver")

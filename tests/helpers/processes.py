"""Processes of their own, forked from one that has imported everything: a spawned one imports for seconds first."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.context import ForkServerContext
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

LEFT: list[Any] = []  # groups that have ended; the process does, soon


def forked() -> ForkServerContext:
    """A context whose processes begin at once; all tests of a worker share the server."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.helpers.preloaded"])
    return context


def on_two(run_rank: Callable[..., None], *args: Any) -> None:
    """Call ``run_rank(rank, *args)`` for the ranks 0 and 1, each in a process of its own; an error of one is raised."""
    forked()
    mp.start_processes(run_rank, args, nprocs=2, start_method="forkserver")


@contextmanager
def gloo(rank: int, folder: str) -> Iterator[None]:
    """A group of the two processes of :func:`on_two`, with one thread each; they meet at a file in ``folder``."""
    torch.set_num_threads(1)
    meet, minute = f"file://{folder}/meet", timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2, timeout=minute)
    yield  # an error of one ends both: `on_two` stops the other
    leave_together()


def leave_together() -> None:
    """End the group. Its object stays: torch 2.6 joins the threads of one that goes while it holds Python's lock, and a
    thread that is just letting go of a tensor waits for that lock for ever."""
    LEFT.append(dist.group.WORLD)
    dist.barrier()
    dist.destroy_process_group()

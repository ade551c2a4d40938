"""Ways to do the same work, timed by turns so that other work on the machine weighs on all of them."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

Input = TypeVar("Input")


def seconds_by_turns(ways: Mapping[str, Callable[[Input], object]], work: Input, runs: int) -> dict[str, list[float]]:
    """Seconds of every run of each way."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(runs):
        for name, way in ways.items():
            begun = time.perf_counter()
            way(work)
            seconds[name].append(time.perf_counter() - begun)
            print(f"{name}: {seconds[name][-1]:.2f} s", file=sys.stderr, flush=True)
    return seconds


def cells(seconds: Mapping[str, list[float]], against: str) -> dict[str, list[str]]:
    """Of each way, for a table: median, range, and how many times faster than `against`."""
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        name: [
            f"{medians[name]:.2f}",
            f"{min(times):.2f} to {max(times):.2f}",
            f"{medians[against] / medians[name]:.1f}×",
        ]
        for name, times in seconds.items()
    }

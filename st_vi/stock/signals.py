"""Signals that ask a process to end."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

STOPPING = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP")  # Ctrl-C; docker stop, systemd, SLURM; a closed terminal
    if hasattr(signal, name)
)


@contextmanager
def handled(handler: Callable[[int, Any], None], numbers: tuple[signal.Signals, ...] = STOPPING) -> Iterator[None]:
    """Handle signals in the block, but for those that are ignored, as SIGHUP is under `nohup`.

    For the main thread: Python handles signals nowhere else.

    Example:
        >>> import signal
        >>> from st_vi.stock.signals import handled
        >>> asked = []
        >>> with handled(lambda number, frame: asked.append(number)):
        ...     signal.raise_signal(signal.SIGTERM)
        >>> asked == [signal.SIGTERM]
        True
    """
    not_ours = (signal.SIG_IGN, None)  # None: not by Python
    numbers = tuple(number for number in numbers if signal.getsignal(number) not in not_ours)
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)

"""Signals that ask a process to end."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

STOPPING = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP")  # Ctrl-C; docker stop, systemd, SLURM; a closed terminal
    if hasattr(signal, name)
)
_OF_TIMER = (signal.SIGALRM,) if hasattr(signal, "SIGALRM") else ()  # none on Windows


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


class Stop:
    """A handler that raises `KeyboardInterrupt`, and again if that is lost.

    Python drops exceptions that are raised in a destructor or a callback of C, and some libraries do so while they are
    imported. A timer looks, therefore, whether the exception is on its way; on Windows, which has none, it is raised
    once.

    Args:
        seconds: Between two looks.

    Attributes:
        asked: The last signal, SIGINT if there was none.

    Example:
        >>> import signal
        >>> from contextlib import suppress
        >>> from st_vi.stock.signals import Stop
        >>> stop = Stop()
        >>> with suppress(KeyboardInterrupt), stop.listening():
        ...     signal.raise_signal(signal.SIGTERM)
        >>> stop.asked == signal.SIGTERM
        True
    """

    def __init__(self, seconds: float = 1.0) -> None:
        self.asked, self.seconds = signal.SIGINT, seconds
        self._raised = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle all signals that ask to end in the block. For the main thread."""
        with handled(self._raise), handled(self._raise_if_lost, _OF_TIMER):
            try:
                yield
            finally:
                self._raised = False  # first: the timer may end just now
                _set_timer(0)

    def _raise(self, number: int, frame: Any) -> None:
        self.asked, self._raised = signal.Signals(number), True
        _set_timer(self.seconds)
        raise KeyboardInterrupt

    def _raise_if_lost(self, number: int, frame: Any) -> None:
        if not self._raised:
            return
        _set_timer(self.seconds)
        error = sys.exc_info()[1]  # of the code that the timer has stopped: what `finally` and `except` are working on
        while error is not None and not isinstance(error, KeyboardInterrupt):
            error = error.__context__
        if error is None:
            raise KeyboardInterrupt


def _set_timer(seconds: float) -> None:
    """Send SIGALRM to this process then; 0 ends the timer."""
    if _OF_TIMER:
        signal.setitimer(signal.ITIMER_REAL, seconds)

"""A request to end is not lost, and what cleans up is not disturbed by it."""

from __future__ import annotations

import signal
import time

import pytest

from st_vi.stock.signals import Stop

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs a timer that sends signals")


class _Dropping:
    """What its destructor raises, Python prints and drops."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0)  # the handler runs here at the latest


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_request_that_python_drops_is_made_again():
    stop, before = Stop(seconds=0.05), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), stop.listening():
        _Dropping()
        for _ in range(100):  # the destructor has not ended this
            time.sleep(0.1)
    assert stop.asked == signal.SIGTERM and signal.getsignal(signal.SIGTERM) is before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


@pytest.mark.parametrize("while_another_fails", [False, True])
def test_cleaning_up_takes_its_time(while_another_fails):
    """Also where that meets errors of its own."""
    done = []
    with pytest.raises(KeyboardInterrupt), Stop(seconds=0.02).listening():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            if while_another_fails:
                try:
                    _ = 1 / 0
                except ZeroDivisionError:
                    time.sleep(0.2)
            time.sleep(0.2)
            done.append(True)
    assert done

"""Ctrl-C and other requests to end during training: a checkpoint after the current step."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

from st_vi.stock.signals import handled
from st_vi.stock.training import saving_when_raised

logger = logging.get_logger(__name__)


class Interruption(TrainerCallback):
    """On the first Ctrl-C, SIGTERM or SIGHUP, saves a checkpoint after the current step, and then lets the signal act.

    Ctrl-C then raises `KeyboardInterrupt`; SIGTERM ends the process, unless the program handles it. The second one
    stops immediately. Stopping within a step would leave weights that are only partly updated.
    """

    def __init__(self) -> None:
        self.asked = 0  # the number of the signal

    @contextmanager
    def listening(self, alone: bool) -> Iterator[None]:
        """Handle signals in the block, in the main thread of a single process: several would not stop at one step."""
        if not alone or threading.current_thread() is not threading.main_thread():
            yield
            return
        stopped: BaseException | None = None
        with handled(self._ask):
            try:
                yield
            except (KeyboardInterrupt, RuntimeError) as error:  # Ctrl-C also stops the data loader workers
                if not self.asked or (isinstance(error, RuntimeError) and saving_when_raised(error)):
                    raise
                stopped = error
        if self.asked:
            signal.raise_signal(self.asked)
        if stopped:  # the program's own handler lets it go on
            raise KeyboardInterrupt from stopped

    def _ask(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = number
        again = "Ctrl-C again" if number == signal.SIGINT else "the same signal again"
        logger.warning(f"stopping after this step, with a checkpoint; {again} stops immediately")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Request a checkpoint, except at the end of an epoch, where `on_epoch_end` does so after the evaluation."""
        if self.asked and (state.epoch is None or not math.isclose(state.epoch, round(state.epoch), abs_tol=1e-9)):
            control.should_save = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Request a checkpoint."""
        if self.asked:
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop after the checkpoint."""
        if self.asked:
            raise KeyboardInterrupt

"""Ctrl-C ends a training after its step, with a checkpoint to go on from."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

logger = logging.get_logger(__name__)


class Interruption(TrainerCallback):
    """Turns the first Ctrl-C into a checkpoint and a `KeyboardInterrupt` after the step; the second one is stock's.

    A step that is cut in two leaves weights of which a part has moved: nothing to go on from.
    """

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def listening(self, alone: bool) -> Iterator[None]:
        """Listen within, if this is the main thread and the process is `alone`: several would stop at other steps."""
        if not alone or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._ask)
        try:
            yield
        except RuntimeError as error:
            if self.asked:  # Ctrl-C has ended the data loader's processes, too
                raise KeyboardInterrupt from error
            raise
        finally:
            signal.signal(signal.SIGINT, before)

    def _ask(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        logger.warning("stopping after this step, with a checkpoint; Ctrl-C again stops at once, without one")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask the trainer for a checkpoint; at the end of an epoch, `on_epoch_end` does, after the evaluation."""
        if self.asked and (state.epoch is None or not math.isclose(state.epoch, round(state.epoch), abs_tol=1e-9)):
            control.should_save = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask the trainer for a checkpoint."""
        if self.asked:
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop, now that there is one."""
        if self.asked:
            raise KeyboardInterrupt

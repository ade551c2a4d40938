"""Ctrl-C during training: saves a checkpoint after the current step."""

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
    """On the first Ctrl-C, saves a checkpoint after the current step and raises `KeyboardInterrupt`.

    The second Ctrl-C stops immediately. Stopping within a step would leave weights that are only partly updated.
    """

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def listening(self, alone: bool) -> Iterator[None]:
        """Handle Ctrl-C in the block, in the main thread of a single process; several would stop at different steps."""
        if not alone or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._ask)
        try:
            yield
        except RuntimeError as error:
            if self.asked:  # Ctrl-C also stopped the data loader workers
                raise KeyboardInterrupt from error
            raise
        finally:
            signal.signal(signal.SIGINT, before)

    def _ask(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        logger.warning("stopping after this step, with a checkpoint; Ctrl-C again stops immediately")

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

"""One bar for a training, with its latest figures beside it."""

from __future__ import annotations

from typing import Any

from transformers import ProgressCallback, TrainerControl, TrainerState, TrainingArguments


class Bar(ProgressCallback):
    """The stock trainer's bar, with the loss beside it where the stock one prints a dict for every entry of the log.

    Give it as one of the `callbacks` of `train_viclsr` or `train_vipolyqwen`: it takes the place of the stock one. The
    log itself is what it was, in ``trainer.state.log_history``.

    Example:
        >>> from st_vi import train_viclsr
        >>> from st_vi.recipes.training.progress import Bar
        >>> train_viclsr(model, rows, "outputs", callbacks=[Bar()])  # doctest: +SKIP
    """

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show the loss, and forget the rest."""
        if self.training_bar is not None and "loss" in (logs or {}):
            self.training_bar.set_postfix_str(f"loss {logs['loss']:.4g}", refresh=False)  # type: ignore[index]

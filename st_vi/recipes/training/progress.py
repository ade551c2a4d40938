"""A progress bar with the current loss."""

from __future__ import annotations

from typing import Any

from transformers import ProgressCallback, TrainerControl, TrainerState, TrainingArguments


class Bar(ProgressCallback):
    """A progress bar that shows the loss, instead of printing a dict for every log entry.

    Pass it in the `callbacks` of `train_viclsr` or `train_vipolyqwen` to replace the stock bar. The log in
    ``trainer.state.log_history`` is unchanged.

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
        """Show the loss."""
        if self.training_bar is not None and "loss" in (logs or {}):
            self.training_bar.set_postfix_str(f"loss {logs['loss']:.4g}", refresh=False)  # type: ignore[index]

"""Private parts of torch's and transformers' training."""

from __future__ import annotations

from collections.abc import Callable
from traceback import extract_tb
from typing import Any, Literal

from torch import nn
from transformers import Trainer, TrainingArguments


def uncompiled(model: Any) -> Any:
    """The model inside of `torch.compile`'s wrapper, which keeps it as ``_orig_mod``; any other as it is."""
    return getattr(model, "_orig_mod", model) if isinstance(model, nn.Module) else model


class Read:
    """A model with another output, for stock's GradCache.

    It looks for DDP behind ``_orig_mod``, as `torch.compile`'s wrapper calls it. If that changes, DDP synchronizes
    after every mini-batch, which is slower.

    Args:
        model: The model, which may be wrapped.
        read: Makes the output from that of the model.
    """

    def __init__(self, model: Any, read: Callable[[Any], Any]) -> None:
        self._orig_mod = uncompiled(model)
        self.model = model
        self.read = read

    def __call__(self, features: Any) -> Any:
        """The output that was read."""
        return self.read(self.model(features))


def on_one_gpu(args: TrainingArguments) -> None:
    """Keep the trainer from `DataParallel`, which splits a batch over all GPUs of the machine.

    ``_n_gpu`` is the number of GPUs it would use. The public way is the environment, for the whole process.
    """
    args._n_gpu = min(args.n_gpu, 1)


def divide_once(trainer: Trainer) -> None:
    """Keep accelerate from dividing the loss by the steps of gradient accumulation, which the trainer has done.

    With transformers 5.5, both divide: the gradient is too small by that factor, which changes the steps of SGD, and
    what is clipped with every optimizer. Newer ones do the same as this. With DeepSpeed, accelerate does not divide.
    """
    if not trainer.is_deepspeed_enabled:
        trainer.accelerator.gradient_accumulation_steps = 1


def stop_after_last_step(trainer: Trainer) -> None:
    """Keep the trainer from one step more when it resumes from the last one within an epoch.

    It compares the steps with `max_steps` only after a step. Here it gets no batches then, which ends the epoch.
    """
    batches = trainer.get_batch_samples

    def batches_or_none(*arguments: Any) -> Any:
        return batches(*arguments) if trainer.state.global_step < trainer.state.max_steps else ([], None)

    trainer.get_batch_samples = batches_or_none  # type: ignore[method-assign,assignment]


def saving_when_raised(error: BaseException) -> Literal["checkpoint", "model"] | None:
    """What was being saved when an error was raised, going by the functions in its traceback.

    ``_save_checkpoint`` is the trainer's method around all that belongs to a checkpoint. Errors of torch and
    safetensors do not say which file they wrote.
    """
    calls = {frame.name for frame in extract_tb(error.__traceback__)}
    return "checkpoint" if "_save_checkpoint" in calls else "model" if "save_pretrained" in calls else None

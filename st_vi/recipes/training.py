"""What every recipe does around the stock trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from traceback import extract_tb
from typing import Any

from datasets import Dataset, DatasetDict
from safetensors import SafetensorError
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.data_collator import BaseDataCollator
from sentence_transformers.base.evaluation import BaseEvaluator, SequentialEvaluator
from torch import nn
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from st_vi.losses.own_model import check_own_model
from st_vi.recipes.arguments import check_arguments
from st_vi.recipes.checkpoints import last_complete_checkpoint, not_written

logger = logging.get_logger(__name__)

_NO_FIGURES = ("runtime", "_per_second", "loss")
"""What the trainer logs beside the evaluator's figures."""


def train(
    model: SentenceTransformer,
    train_dataset: Dataset | DatasetDict,
    output_dir: str | Path,
    loss: nn.Module,
    training_arguments: Callable[..., SentenceTransformerTrainingArguments],
    arguments: Mapping[str, Any],
    evaluator: BaseEvaluator | None = None,
    data_collator: BaseDataCollator | None = None,
    resume: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
) -> SentenceTransformerTrainer:
    """Train `model` in place with the stock trainer, and save it in `output_dir`.

    With an evaluator, it is run after every epoch, and the model ends with the weights of the best one. Without a
    primary metric, as of `GeometryEvaluator`, there is no best one, and the model ends with the last.

    Args:
        model: The model to train.
        train_dataset: What the loss needs.
        output_dir: Where checkpoints and the trained model go.
        loss: Of this model.
        training_arguments: The recipe's function from output_dir and stock arguments to training arguments.
        arguments: Stock arguments, over the recipe's and over what follows from `evaluator`.
        evaluator: Run on held-out rows.
        data_collator: Where the stock one will not do.
        resume: Go on from the last complete checkpoint in `output_dir`, where there is one; one that was cut short is
            skipped with a warning (`last_complete_checkpoint`).
        callbacks: For the trainer.

    Returns:
        The trainer, with its log in ``trainer.state.log_history``.

    Raises:
        ValueError: The arguments would train nothing (`check_arguments`).
        OSError: A checkpoint or the trained model could not be written, as on a full disk; what to go on from is named.
    """
    check_own_model(loss, model)
    if _has_frozen_adapter(model):
        logger.warning('the model\'s adapter is frozen, as a loaded one is: model.set_adapter("default") trains it on')
    schedule: dict[str, Any] = {"eval_strategy": "no"}
    if evaluator is not None:
        is_sequence = isinstance(evaluator, SequentialEvaluator)  # says so only after its first call
        metric = "sequential_score" if is_sequence else evaluator.primary_metric
        schedule = {"load_best_model_at_end": True, "metric_for_best_model": f"eval_{metric}"} if metric else {}
    settings = training_arguments(output_dir, **schedule | dict(arguments))
    check_arguments(settings)
    trainer = SentenceTransformerTrainer(
        model=model,
        args=settings,
        train_dataset=train_dataset,
        loss=loss,
        evaluator=evaluator,
        data_collator=data_collator,  # type: ignore[arg-type]
        callbacks=list(callbacks),
    )
    states = not (trainer.args.save_only_model or trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled)
    checkpoint = last_complete_checkpoint(output_dir, model, states) if resume else None
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
        _show_best_figures(model, evaluator, trainer.state.log_history)
        if trainer.args.should_save:  # of several processes, the first
            model.save_pretrained(str(output_dir))
    except (OSError, RuntimeError, SafetensorError) as error:
        calls = {frame.name for frame in extract_tb(error.__traceback__)}
        if not calls & {"_save_checkpoint", "save_pretrained"}:
            raise
        step = f"{PREFIX_CHECKPOINT_DIR}-{trainer.state.global_step}" if "_save_checkpoint" in calls else ""
        left = last_complete_checkpoint(output_dir, model, states)
        raise not_written(Path(output_dir, step), error, left) from error
    return trainer


def _show_best_figures(model: SentenceTransformer, evaluator: BaseEvaluator | None, log: list[dict[str, Any]]) -> None:
    """Where the trainer came back to its best checkpoint, the card has the figures of that, whoever measured them."""
    card = model.model_card_data
    at_best = [entry for entry in log if entry["step"] == card.best_model_step]
    found = {name.removeprefix("eval_"): value for entry in at_best for name, value in entry.items() if "eval_" in name}
    results = card.eval_results_dict if card.eval_results_dict is not None else {}
    for figures in results.values():
        figures.update({name: found[name] for name in figures if name in found})
    if evaluator is not None and not results and found and not isinstance(evaluator, SequentialEvaluator):
        results[evaluator] = {name: value for name, value in found.items() if not name.endswith(_NO_FIGURES)}


def _has_frozen_adapter(model: SentenceTransformer) -> bool:
    if not getattr(model.transformers_model, "peft_config", None):
        return False
    return not any(p.requires_grad for name, p in model.named_parameters() if "lora_" in name)

"""What every recipe does around the stock trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.data_collator import BaseDataCollator
from sentence_transformers.base.evaluation import BaseEvaluator, SequentialEvaluator
from torch import nn
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint


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
        resume: Go on from the last checkpoint in `output_dir`, where there is one.
        callbacks: For the trainer.

    Returns:
        The trainer, with its log in ``trainer.state.log_history``.
    """
    schedule: dict[str, Any] = {"eval_strategy": "no"}
    if evaluator is not None:
        is_sequence = isinstance(evaluator, SequentialEvaluator)  # says so only after its first call
        metric = "sequential_score" if is_sequence else evaluator.primary_metric
        schedule = {"load_best_model_at_end": True, "metric_for_best_model": f"eval_{metric}"} if metric else {}
    trainer = SentenceTransformerTrainer(
        model=model,
        args=training_arguments(output_dir, **schedule | dict(arguments)),
        train_dataset=train_dataset,
        loss=loss,
        evaluator=evaluator,
        data_collator=data_collator,
        callbacks=list(callbacks),
    )
    checkpoint = get_last_checkpoint(str(output_dir)) if resume and Path(output_dir).is_dir() else None
    trainer.train(resume_from_checkpoint=checkpoint)
    if trainer.args.should_save:  # of several processes, the first
        model.save_pretrained(str(output_dir))
    return trainer

"""Selection of the best checkpoint by evaluators."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.evaluation import BaseEvaluator, SequentialEvaluator
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from st_vi.recipes.training.checkpoints import check_checkpoint

logger = logging.get_logger(__name__)

# Most stock evaluators set their primary metric when they are first called.
_NOT_YET_KNOWN = "eval_primary_metric"


def judges_of(evaluators: BaseEvaluator | Sequence[BaseEvaluator] | None) -> list[BaseEvaluator]:
    """The evaluators as a flat list, with those inside a `SequentialEvaluator`.

    The stock class uses the score of its last evaluator, and, if that has no primary metric, its first value, which may
    be anything. A `SequentialEvaluator` with its own main score function is kept as it is.
    """
    if evaluators is None:
        return []
    if isinstance(evaluators, SequentialEvaluator):
        default = signature(SequentialEvaluator).parameters["main_score_function"].default
        return judges_of(evaluators.evaluators) if evaluators.main_score_function is default else [evaluators]
    if isinstance(evaluators, BaseEvaluator):
        return [evaluators]
    if isinstance(evaluators, str) or not isinstance(evaluators, Sequence):
        raise ValueError(f"evaluator must be an evaluator or a list of them, got {type(evaluators).__name__}")
    return [judge for evaluator in evaluators for judge in judges_of(evaluator)]


def schedule(evaluators: Sequence[BaseEvaluator], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Stock training arguments for saving and evaluation that follow from the evaluators and the given arguments.

    Saving and evaluation use the same schedule: what is set for one applies to the other, unless that is set too.

    Example:
        >>> from st_vi.recipes.training.best_checkpoint import schedule
        >>> schedule([], {"save_strategy": "steps"})
        {'eval_strategy': 'no'}
    """
    if not evaluators:
        return {"eval_strategy": "no"}
    said = {name: _text(arguments.get(name)) for name in ("save_strategy", "eval_strategy")}
    saving = said["save_strategy"] or (said["eval_strategy"] if said["eval_strategy"] != "no" else None) or "epoch"
    evaluating = said["eval_strategy"] or (saving if saving == "steps" else "epoch")
    result: dict[str, Any] = {"save_strategy": saving, "eval_strategy": evaluating}
    if saving == evaluating == "steps":
        every = arguments.get("save_steps", arguments.get("eval_steps", 500))
        result |= {"save_steps": every, "eval_steps": arguments.get("eval_steps", every)}
    if evaluating == "no" or saving == "no":
        return result
    if saving not in (evaluating, "best") or result.get("save_steps", 0) % result.get("eval_steps", 1):
        logger.warning(
            "the last weights will be kept, not the best, because checkpoints are not saved at each evaluation"
        )
        return result
    return result | {
        "load_best_model_at_end": True,
        "metric_for_best_model": _metric(evaluators[-1]) or _NOT_YET_KNOWN,
        "greater_is_better": getattr(_judge(evaluators), "greater_is_better", True),
    }


class BestMetric(TrainerCallback):
    """Sets the metric for the best checkpoint after the first evaluation, and warns where it is NaN.

    Such a figure chooses no checkpoint. Correlations are NaN if all vectors are the same, to which a learning rate that
    is too high leads, too, while all weights are finite.
    """

    def __init__(self, evaluators: Sequence[BaseEvaluator]) -> None:
        self.evaluators = evaluators
        self.resumed: TrainerState | None = None  # what the checkpoint has from which a run is resumed

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: SentenceTransformer | None = None,
        **kwargs: Any,
    ) -> None:
        """Take the best checkpoint of a resumed run from its folder, which may have been moved or copied since.

        At its former place there may be none or that of another run. Without it, the best of the rest is chosen.
        """
        if model is None or self.resumed is None or not (recorded := self.resumed.best_model_checkpoint):
            return
        here = Path(args.output_dir or "", f"{PREFIX_CHECKPOINT_DIR}-{recorded.rpartition('-')[2]}")
        try:
            check_checkpoint(here, model, states=False)
            state.best_model_checkpoint = str(here)
        except (ValueError, OSError) as error:
            logger.warning(
                f"the best checkpoint so far, {here}, is not complete: {error}; the best of the rest is kept"
            )
            state.best_model_checkpoint = state.best_metric = state.best_global_step = None

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Set the metric; without one, there is no best checkpoint."""
        found = [metric for metric in map(_metric, self.evaluators) if metric and metric in (metrics or {})]
        if not found and "eval_evaluator" in (metrics or {}):  # a number, and not a dict
            found = ["eval_evaluator"]
        if args.metric_for_best_model == _NOT_YET_KNOWN:
            args.metric_for_best_model = found[-1] if found else None
        for metric in found[-1:]:
            if math.isnan((metrics or {})[metric]):
                logger.warning(
                    f"{metric} is NaN after step {state.global_step}: unless all labels of the evaluator are the same, "
                    "all vectors are, and training has diverged; start again with a lower learning rate than "
                    f"{args.learning_rate:g}"
                )


def _judge(evaluators: Sequence[BaseEvaluator]) -> BaseEvaluator:
    return next((e for e in reversed(evaluators) if _metric(e) is not None), evaluators[-1])


def _metric(evaluator: BaseEvaluator) -> str | None:
    """The metric, if it is known."""
    if isinstance(evaluator, SequentialEvaluator):  # known only after its first call
        return "eval_sequential_score"
    name = getattr(evaluator, "primary_metric", None)
    return f"eval_{name}" if name else None


def _text(strategy: Any) -> str | None:
    return None if strategy is None else str(getattr(strategy, "value", strategy))

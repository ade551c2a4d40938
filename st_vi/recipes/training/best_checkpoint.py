"""Which checkpoint is the best, where evaluators say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

from sentence_transformers.base.evaluation import BaseEvaluator, SequentialEvaluator
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

logger = logging.get_logger(__name__)

# Most stock evaluators name their primary metric when they have been called.
_NOT_YET_KNOWN = "eval_primary_metric"


def judges_of(evaluators: BaseEvaluator | Sequence[BaseEvaluator] | None) -> list[BaseEvaluator]:
    """One evaluator after the other, those inside of a `SequentialEvaluator` as well.

    Of its evaluators stock takes the last one for the whole, and of one without a primary metric the first figure,
    which may be anything. One with a function of its own for the main score stays as it is.

    Example:
        >>> from sentence_transformers.base.evaluation import SequentialEvaluator
        >>> from st_vi.recipes.training.best_checkpoint import judges_of
        >>> judges_of(SequentialEvaluator([]))
        []
    """
    if evaluators is None:
        return []
    if isinstance(evaluators, SequentialEvaluator):
        default = signature(SequentialEvaluator).parameters["main_score_function"].default
        return judges_of(evaluators.evaluators) if evaluators.main_score_function is default else [evaluators]
    if isinstance(evaluators, BaseEvaluator):
        return [evaluators]
    return [judge for evaluator in evaluators for judge in judges_of(evaluator)]


def schedule(evaluators: Sequence[BaseEvaluator], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Stock training arguments that follow from the evaluators, and from what was said of saving and evaluating.

    Evaluations come with the checkpoints, and the checkpoints with the evaluations: what was said of one holds for the
    other, unless that was said, too.

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
            "the model will end with its last weights, not its best: checkpoints are not saved when it is evaluated"
        )
        return result
    return result | {
        "load_best_model_at_end": True,
        "metric_for_best_model": _known_metric(evaluators) or _NOT_YET_KNOWN,
        "greater_is_better": getattr(_judge(evaluators), "greater_is_better", True),
    }


class BestMetric(TrainerCallback):
    """Fills in the metric that picks the best checkpoint, when the first evaluation has named it.

    Args:
        evaluators: Of the trainer.
    """

    def __init__(self, evaluators: Sequence[BaseEvaluator]) -> None:
        self.evaluators = evaluators

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Name it; without one there is no best checkpoint."""
        if args.metric_for_best_model != _NOT_YET_KNOWN:
            return
        found = [metric for metric in map(_metric, self.evaluators) if metric in (metrics or {})]
        if not found and "eval_evaluator" in (metrics or {}):  # a number, and not a dict
            found = ["eval_evaluator"]
        args.metric_for_best_model = found[-1] if found else None


def _judge(evaluators: Sequence[BaseEvaluator]) -> BaseEvaluator:
    return next((e for e in reversed(evaluators) if _metric(e) is not None), evaluators[-1])


def _known_metric(evaluators: Sequence[BaseEvaluator]) -> str | None:
    """If it is known before the first call."""
    return _metric(evaluators[-1])


def _metric(evaluator: BaseEvaluator) -> str | None:
    if isinstance(evaluator, SequentialEvaluator):  # says so only after its first call
        return "eval_sequential_score"
    name = getattr(evaluator, "primary_metric", None)
    return f"eval_{name}" if name else None


def _text(strategy: Any) -> str | None:
    return None if strategy is None else str(getattr(strategy, "value", strategy))

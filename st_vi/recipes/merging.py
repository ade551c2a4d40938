"""Merging of models trained from one base: weighted means of their weights, and task vectors."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isclose, isfinite, isnan
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.evaluation import BaseEvaluator
from sentence_transformers.base.modules import Transformer
from tqdm.auto import tqdm

from st_vi.checks import check_whole
from st_vi.hub import load
from st_vi.modules import TaskRouter
from st_vi.modules.model_card import TAGS, ModelCard
from st_vi.recipes.ablation.tables import markdown
from st_vi.stock.adapters import forget_place
from st_vi.stock.merging import check_same_kind

Source = SentenceTransformer | str | Path
"""A model, or a folder or repository to load it from."""

_SETTINGS = ("default_prompt_name", "max_seq_length", "similarity_fn_name", "truncate_dim")
"""Of a model, beside its prompts; stock's check compares its modules only."""


def merge_models(
    models: Sequence[Source], weights: Sequence[float] | None = None, base: Source | None = None
) -> SentenceTransformer:
    """Merge models that were trained from the same base, weight by weight.

    - Without `base`, interpolation: θ = Σ_i w_i θ_i with Σ_i w_i = 1 (arXiv 2203.05482).
    - With `base`, task vectors: θ = θ_base + Σ_i w_i (θ_i − θ_base) (arXiv 2212.04089). Negative weights unlearn.

    Models that were not trained from the same weights have no common directions, and their mean is noise; that cannot
    be seen from the weights and is not checked. For other methods, such as TIES or SLERP, there is the stock
    ``SentenceTransformer.merge``, which needs mergekit.

    Args:
        models: Two or more, or one and a base. They are not changed; all are in memory at once.
        weights: A number for each model; by default equal, with the sum 1.
        base: The model that all were trained from.

    Returns:
        A new model with the prompts, the dtype and the device of the first, a card of its own, in evaluation mode.
        Sums are computed in float64.

    Raises:
        ValueError: The models differ in modules, configuration, vocabulary, prompts, maximum length, similarity or
            dimension of truncation (models are numbered from 0, and the base is the last); one has a LoRA adapter,
            which `merge_lora` merges, or a `TaskRouter`; or the weights are not one finite number per model, with the
            sum 1 if there is no base.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from st_vi import MLPHead
        >>> from st_vi.recipes import merge_models
        >>> def model(value):
        ...     head = MLPHead(2, 1, activation="identity")
        ...     head.layers[0].weight.data.fill_(value)
        ...     return SentenceTransformer(modules=[BoW(["xin", "chào"]), head], device="cpu")
        >>> merge_models([model(1.0), model(2.0)], weights=[0.25, 0.75])[1].layers[0].weight.data
        tensor([[1.7500, 1.7500]])
        >>> merge_models([model(1.0), model(2.0)], weights=[1.0, 1.0], base=model(0.5))[1].layers[0].weight.data
        tensor([[2.5000, 2.5000]])
    """
    mixture = _Mixture(models, base)
    mixture.set(mixture.equal() if weights is None else weights)
    return mixture.model


@dataclass(frozen=True)
class MergeSearch:
    """What `search_merge` found; ``print`` shows the table of what it tried.

    Attributes:
        model: The merged model with the best weights.
        weights: A number for each model.
        score: Its value of the evaluator's primary metric.
        metric: The name of this metric.
        tried: All weights with their scores, in the order in which they were tried.
    """

    model: SentenceTransformer
    weights: tuple[float, ...]
    score: float
    metric: str
    tried: list[tuple[tuple[float, ...], float]]

    def __str__(self) -> str:
        names = [f"model {number}" for number in range(len(self.weights))]
        rows = [[*(f"{weight:g}" for weight in weights), f"{score:.4f}"] for weights, score in self.tried]
        return markdown([*names, self.metric], rows)


def search_merge(
    models: Sequence[Source],
    evaluator: BaseEvaluator,
    base: Source | None = None,
    steps: int = 4,
    candidates: Sequence[Sequence[float]] | None = None,
    show_progress_bar: bool = True,
) -> MergeSearch:
    """Merge models with each of several weights, and keep the one that an evaluator likes best.

    Choose on rows that were held out from training, and report on others: the best of many is too good on its own rows.

    Args:
        models: As for `merge_models`.
        evaluator: A stock evaluator with a primary metric, or one that returns a number.
        base: As for `merge_models`.
        steps: Weights are all multiples of 1 / `steps` that are not negative and have the sum 1; with a base, a sum of
            at most 1, the rest is the base. For 2, 3 and 4 models and 4 steps these are 5, 15 and 35.
        candidates: Weights to try instead, at least one, such as ``[(0.5, 0.5), (1, 1)]``.
        show_progress_bar: Show the progress.

    Returns:
        The best model and all that was tried. Of equal scores, the first is best. A score that is not a number is never
        best. The evaluator runs once more on the best model, so that its figures are in the card.

    Raises:
        ValueError: As for `merge_models`; `steps` is below 1, `candidates` is empty, the evaluator has no primary
            metric, or no score is a number.

    Example:
        >>> from st_vi import load
        >>> from st_vi.recipes import search_merge
        >>> found = search_merge(["outputs/similarity", "outputs/retrieval"], evaluator)  # doctest: +SKIP
        >>> found.weights, found.score  # doctest: +SKIP
        >>> found.model.save_pretrained("outputs/merged")  # doctest: +SKIP
    """
    mixture = _Mixture(models, base)
    check_whole("steps", steps)
    tried: list[tuple[tuple[float, ...], float]] = []
    to_try = mixture.grid(steps) if candidates is None else list(candidates)
    if not to_try:
        raise ValueError("candidates is empty: leave it out for a grid")
    for weights in tqdm(to_try, desc="Merges", disable=not show_progress_bar):
        mixture.set(weights)
        metric, score = _score(evaluator, mixture.model)
        tried.append((tuple(weights), score))
    sign = 1 if getattr(evaluator, "greater_is_better", True) else -1
    known = [one for one in tried if not isnan(one[1])]
    if not known:
        raise ValueError(f"{metric} is not a number for any of the {len(tried)} weights")
    best, score = max(known, key=lambda one: sign * one[1])
    mixture.set(best)
    _score(evaluator, mixture.model)
    return MergeSearch(mixture.model, best, score, metric, tried)


class _Mixture:
    """A model whose weights are set to merges of others."""

    def __init__(self, models: Sequence[Source], base: Source | None) -> None:
        models = models if isinstance(models, (str, Path)) else list(models)
        if isinstance(models, (str, Path)) or len(models) + (base is not None) < 2:
            raise ValueError("merging needs two models, or one and a base")
        self.count, self.has_base = len(models), base is not None
        parts = [_loaded(one) for one in (*models, *([base] if base is not None else []))]
        _check(parts)
        self.states = [part.state_dict() for part in parts]
        self.model = _copy_of(parts[0])

    def equal(self) -> list[float]:
        return [1 / self.count] * self.count

    def grid(self, steps: int) -> list[tuple[float, ...]]:
        sums = _summands(steps, self.count + self.has_base)
        return [tuple(part / steps for part in parts[: self.count]) for parts in sums]

    @torch.no_grad()
    def set(self, weights: Sequence[float]) -> None:
        """Set the weights of `model`."""
        if len(weights) != self.count or not all(map(isfinite, weights)):
            raise ValueError(f"weights must be {self.count} finite numbers, one for each model, got {list(weights)}")
        if not self.has_base and not isclose(sum(weights), 1, abs_tol=1e-6):
            raise ValueError(
                f"without a base, weights must have the sum 1, got {list(weights)}: other sums scale the whole model"
            )
        shares = [*weights, *([1 - sum(weights)] if self.has_base else [])]
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                total = torch.zeros(value.shape, dtype=torch.float64)
                for share, state in zip(shares, self.states, strict=True):
                    total += share * state[name].to("cpu", torch.float64)
                value.copy_(total)


def _summands(total: int, count: int) -> Iterator[tuple[int, ...]]:
    """All ways to write `total` as a sum of `count` numbers, none negative."""
    if count == 1:
        yield (total,)
        return
    for first in range(total + 1):
        yield from ((first, *rest) for rest in _summands(total - first, count - 1))


def _loaded(model: Source) -> SentenceTransformer:
    return model if isinstance(model, SentenceTransformer) else load(model, device="cpu")


def _copy_of(model: SentenceTransformer) -> SentenceTransformer:
    """A new model: its card does not tell of the training of one part."""
    modules: Any = OrderedDict(copy.deepcopy(model).named_children())
    copied = SentenceTransformer(
        modules=modules,
        device=str(model.device),
        prompts={name: prompt or "" for name, prompt in model.prompts.items()},
        default_prompt_name=model.default_prompt_name,
        similarity_fn_name=model.similarity_fn_name,
        truncate_dim=model.truncate_dim,
        model_card_data=ModelCard(language="vi", tags=list(TAGS), local_files_only=True),
    )
    copied.module_kwargs = copy.deepcopy(model.module_kwargs)
    for module in copied.modules():
        if isinstance(module, Transformer):
            forget_place(module.model)
    return copied.eval()


def _check(models: Sequence[SentenceTransformer]) -> None:
    for number, model in enumerate(models):
        if any(getattr(module, "peft_config", None) for module in model.modules()):
            raise ValueError(f"model {number} has a LoRA adapter: call st_vi.recipes.merge_lora(model) first")
        if any(isinstance(module, TaskRouter) for module in model):
            raise ValueError(
                f"model {number} has a TaskRouter, which knows only its own vectors: del model[-1], and train one after"
            )
    check_same_kind(models)
    first = models[0]
    state = first.state_dict()
    for number, model in enumerate(models[1:], start=1):
        if model.prompts != first.prompts:
            names = sorted(
                name
                for name in first.prompts.keys() | model.prompts.keys()
                if first.prompts.get(name) != model.prompts.get(name)
            )
            raise ValueError(f"the prompts {names} of model {number} are not those of model 0")
        for name in _SETTINGS:
            ours, theirs = getattr(first, name), getattr(model, name)
            if ours != theirs:
                raise ValueError(
                    f"{name} is {ours!r} in model 0 and {theirs!r} in model {number}: set it in one of them"
                )
        other = model.state_dict()
        if missing := sorted(state.keys() ^ other.keys()):
            raise ValueError(f"{missing[0]} is a weight of only one of the models 0 and {number}")
        for name, value in state.items():
            if other[name].shape != value.shape:
                shapes = f"{tuple(value.shape)} and {tuple(other[name].shape)}"
                raise ValueError(f"{name} has the shapes {shapes} in the models 0 and {number}")
            if not value.is_floating_point() and not torch.equal(value, other[name].to(value.device)):
                raise ValueError(f"{name}, which holds whole numbers, differs between the models 0 and {number}")


def _score(evaluator: BaseEvaluator, model: SentenceTransformer) -> tuple[str, float]:
    """The name and the value of the primary metric."""
    found = evaluator(model)
    if not isinstance(found, dict):
        return "score", float(found)
    metric = getattr(evaluator, "primary_metric", None)
    if metric not in found:
        raise ValueError(f"{type(evaluator).__name__} names no primary metric among {sorted(found)}")
    return metric, float(found[metric])

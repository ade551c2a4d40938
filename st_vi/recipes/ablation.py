"""What each part of viPolyQwen is worth: the same training with one thing changed, over seeds."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from datasets import DatasetDict
from transformers import set_seed

from st_vi.losses import DLELoss
from st_vi.recipes.vipolyqwen import build_vipolyqwen, train_vipolyqwen, vipolyqwen_evaluator
from st_vi.tasks import VIPOLYQWEN_TASKS, Task, keep_terms
from st_vi.terms import CosineAlignment, HardestNegativeMargin, InfoNCE, PairwiseRank, ScoreMSE

BASELINE = "viPolyQwen"


@dataclass(frozen=True)
class Variant:
    """viPolyQwen with something changed.

    Attributes:
        build: Arguments of `build_vipolyqwen`.
        train: Arguments of `train_vipolyqwen`.
        tasks: Whose terms are trained.
        vision_rate: Learning rate of the vision tower, as a share of the others'; None is that of the whole study.
        warm_up: False trains all terms from the first step.
        prompts: Whether anchors have their prompt when the model is measured.
    """

    build: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    tasks: tuple[Task, ...] = VIPOLYQWEN_TASKS
    vision_rate: float | None = None
    warm_up: bool = True
    prompts: bool = True


def _each_term(tasks: Iterable[Task], kind: type, **changes: Any) -> tuple[Task, ...]:
    """The same tasks with something changed in every term of one kind."""
    return tuple(
        replace(task, terms=tuple(replace(t, **changes) if isinstance(t, kind) else t for t in task.terms))  # type: ignore[type-var]
        for task in tasks
    )


_NOT_RANKING = (InfoNCE, ScoreMSE, CosineAlignment, HardestNegativeMargin)

VARIANTS: dict[str, Variant] = {
    BASELINE: Variant(),
    "mean pooling": Variant(build={"pooling": "mean"}),
    "last-token pooling": Variant(build={"pooling": "lasttoken"}),
    "linear head": Variant(build={"head": "linear"}),
    "one learning rate": Variant(vision_rate=1.0),
    "vision tower at a tenth of the rate": Variant(vision_rate=0.1),
    "no prefix": Variant(train={"prefix_side": "none"}, prompts=False),
    "no ranking": Variant(tasks=keep_terms(VIPOLYQWEN_TASKS, *_NOT_RANKING)),
    "InfoNCE only": Variant(tasks=keep_terms(VIPOLYQWEN_TASKS, InfoNCE)),
    "InfoNCE + MSE": Variant(tasks=keep_terms(VIPOLYQWEN_TASKS, InfoNCE, ScoreMSE)),
    "InfoNCE + ranking": Variant(tasks=keep_terms(VIPOLYQWEN_TASKS, InfoNCE, PairwiseRank)),
    "equal weights": Variant(tasks=_each_term(VIPOLYQWEN_TASKS, object, weight=1.0)),
    "InfoNCE for scores of ¾ and more": Variant(tasks=_each_term(VIPOLYQWEN_TASKS, InfoNCE, min_score=0.75)),
    "no InfoNCE warm-up": Variant(warm_up=False),
}
"""The published system, and one change of it each. Only text pairs have scores, so MSE and ranking are theirs."""


@dataclass(frozen=True)
class Study:
    """What all variants share.

    Attributes:
        base_of: From the seed to the folder or hub id of the Qwen2-VL to start from.
        train_rows: For training, as in `train_vipolyqwen`.
        test_rows: To measure with, as in `vipolyqwen_evaluator`.
        build: Arguments of `build_vipolyqwen`.
        arguments: Stock training arguments.
        warm_up: Share of the steps with InfoNCE alone: 0 for a pretrained base.
        vision_rate: As in `Variant`; the paper's is 0.1.
    """

    base_of: Callable[[int], str | Path]
    train_rows: DatasetDict
    test_rows: DatasetDict
    build: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    warm_up: float = 0.0
    vision_rate: float = 0.1

    def variants(self) -> list[str]:
        """Names of `VARIANTS` that differ from the baseline in this study."""
        same = {name for name, variant in VARIANTS.items() if variant.vision_rate == self.vision_rate}
        if not self.warm_up:
            same.add("no InfoNCE warm-up")
        return [name for name in VARIANTS if name not in same]

    def run(self, name: str, seed: int) -> dict[str, Any]:
        """Train one variant with one seed, and measure it.

        Returns:
            ``variant``, ``seed``, and by data set ``hits`` (whether each test row's positive came first),
            ``cosines`` and ``scores`` (of rows that have scores).
        """
        variant = VARIANTS[name]
        base = self.base_of(seed)  # first: making a small model draws random numbers
        set_seed(seed)
        model = build_vipolyqwen(base, **{**self.build, **variant.build})
        with tempfile.TemporaryDirectory() as folder:
            train_vipolyqwen(
                model,
                self.train_rows,
                folder,
                loss=DLELoss(model, variant.tasks),
                info_nce_warm_up=self.warm_up if variant.warm_up else 0.0,
                **variant.train,
                **{**self.arguments, "seed": seed, "learning_rate_mapping": self._rates(variant)},
            )
        evaluator = vipolyqwen_evaluator(self.test_rows, write_csv=False)
        if not variant.prompts:
            evaluator.prompt_names = {}
        evaluator(model)
        scores = {kind: rows["score"][:] for kind, rows in self.test_rows.items() if "score" in rows.column_names}
        return {
            "variant": name,
            "seed": seed,
            "hits": {kind: (ranks <= 1).int().tolist() for kind, ranks in evaluator.ranks.items()},
            "cosines": {kind: evaluator.cosines[kind].tolist() for kind in scores},
            "scores": scores,
        }

    def _rates(self, variant: Variant) -> dict[str, float]:
        share = self.vision_rate if variant.vision_rate is None else variant.vision_rate
        return {} if share == 1 else {r"visual\.": share * self.arguments["learning_rate"]}


def ablate(
    study: Study, results: str | Path, seeds: Sequence[int] = (0, 1, 2), variants: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Run every variant with every seed, seed by seed; what stands in `results` already is not run again.

    Args:
        study: What the variants share.
        results: A JSON Lines file; every run is added to it when it ends.
        seeds: Of the weights of pooling and head, and of the order of the rows.
        variants: Names of `VARIANTS`; None is all that differ in this study. The baseline is always among them.

    Yields:
        What `Study.run` gives, old and new.

    Raises:
        ValueError: An unknown variant.
    """
    known = study.variants()
    if unknown := set(variants or ()) - set(known):
        raise ValueError(f"unknown variants {sorted(unknown)}; there are {', '.join(known)}")
    results = Path(results)
    results.parent.mkdir(parents=True, exist_ok=True)
    done = read_results(results)
    yield from done
    finished = {(result["variant"], result["seed"]) for result in done}
    for seed in seeds:
        for name in known:
            if (name, seed) in finished or not (variants is None or name in variants or name == BASELINE):
                continue
            result = study.run(name, seed)
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result, ensure_ascii=False) + "\n")
            yield result


def read_results(path: str | Path) -> list[dict[str, Any]]:
    """What `ablate` has written so far; nothing where there is no file."""
    if not Path(path).exists():
        return []
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]

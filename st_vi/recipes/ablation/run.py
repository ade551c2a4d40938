"""What each part of viPolyQwen is worth: the same training with one thing changed, over seeds."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict
from transformers import set_seed

from st_vi.losses import DLELoss
from st_vi.recipes.ablation.manifest import keep_manifest
from st_vi.recipes.row_checks import num_positives
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
        replace(task, terms=tuple(replace(t, **changes) if isinstance(t, kind) else t for t in task.terms))
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
        base_name: What `base_of` gives, in words: part of what tells one study's results from another's.
    """

    base_of: Callable[[int], str | Path]
    train_rows: DatasetDict
    test_rows: DatasetDict
    build: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    warm_up: float = 0.0
    vision_rate: float = 0.1
    base_name: str = ""

    def variants(self) -> list[str]:
        """Names of `VARIANTS` that differ from the baseline, and from one another, on the tasks of this study."""
        trained = {task for rows in self.train_rows.values() for task in rows["task"]}
        names: dict[str, str] = {}
        for name, variant in VARIANTS.items():
            tasks = [task for task in variant.tasks if task.name in trained]
            warm_up = bool(variant.warm_up and self.warm_up)
            names.setdefault(repr([variant.build, variant.train, tasks, self._rates(variant), warm_up]), name)
        return list(names.values())

    def check(self) -> None:
        """Make sure, before anything is trained, that there will be something to measure.

        Raises:
            ValueError: There are no rows to train on or to measure with, or a data set has one row alone, from which
                no interval can be made.
        """
        if not any(len(rows) for rows in self.train_rows.values()):
            raise ValueError("there are no rows to train on")
        if not self.test_rows:
            raise ValueError("there are no rows to measure with")
        for kind, rows in self.test_rows.items():
            if len(rows) < 2:
                raise ValueError(f"there is {len(rows)} row of {kind!r} to measure with: an interval needs two or more")

    def run(self, name: str, seed: int) -> dict[str, Any]:
        """Train one variant with one seed, and measure it.

        Returns:
            ``variant``, ``seed``, and by data set ``hits`` (whether each test row's positive came first); and for data
            sets whose scores differ, of the rows that have one, ``cosines`` and ``scores``.
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
                loss=DLELoss(model, variant.tasks, num_positives=num_positives(self.train_rows) or 1),
                info_nce_warm_up=self.warm_up if variant.warm_up else 0.0,
                **variant.train,
                **{**self.arguments, "seed": seed, "learning_rate_mapping": self._rates(variant)},
            )
        evaluator = vipolyqwen_evaluator(self.test_rows, write_csv=False)
        if not variant.prompts:
            evaluator.prompt_names = {}
        evaluator(model)
        scored = {kind: known for kind, rows in self.test_rows.items() if (known := _known_scores(rows))}
        return {
            "variant": name,
            "seed": seed,
            "hits": {kind: (ranks <= 1).int().tolist() for kind, ranks in evaluator.ranks.items()},
            "cosines": {kind: evaluator.cosines[kind][list(known)].tolist() for kind, known in scored.items()},
            "scores": {kind: list(known.values()) for kind, known in scored.items()},
        }

    def _rates(self, variant: Variant) -> dict[str, float]:
        share = self.vision_rate if variant.vision_rate is None else variant.vision_rate
        return {} if share == 1 else {r"visual\.": share * self.arguments["learning_rate"]}


def _known_scores(rows: Dataset) -> dict[int, float]:
    """The scores of the rows that have one; none where all are the same, so that there is nothing to correlate."""
    scores = rows["score"][:] if "score" in rows.column_names else []
    known = {number: score for number, score in enumerate(scores) if score is not None and score == score}
    return known if len(set(known.values())) > 1 else {}


def ablate(
    study: Study, results: str | Path, seeds: Sequence[int] = (0, 1, 2), variants: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Run every variant with every seed, seed by seed; what stands in `results` already is not run again.

    Args:
        study: What the variants share.
        results: A JSON Lines file; every run is added to it when it ends. What makes the study is kept beside it, in
            ``study.json``.
        seeds: Of the weights of pooling and head, and of the order of the rows.
        variants: Names of `VARIANTS`; None is all that differ in this study. The baseline is always among them.

    Yields:
        What `Study.run` gives, old and new.

    Raises:
        ValueError: An unknown variant, or one that is the same as another in this study; too few rows to measure
            with; or `results` are those of another study, or of an unknown one.
    """
    known = study.variants()
    if unknown := set(variants or ()) - set(known):
        raise ValueError(f"unknown variants {sorted(unknown)}; in this study there are {', '.join(known)}")
    study.check()
    results = Path(results)
    done = read_results(results)
    keep_manifest(study, results.with_name("study.json"), has_results=bool(done))
    yield from done
    finished = {(result["variant"], result["seed"]) for result in done}
    for seed in seeds:
        for name in known:
            if (name, seed) in finished or not (variants is None or name in variants or name == BASELINE):
                continue
            result = study.run(name, seed)
            _append(results, result)
            yield result


def _append(path: Path, result: dict[str, Any]) -> None:
    with path.open("ab+") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)  # a line that a kill left unfinished
        file.write(json.dumps(result, ensure_ascii=False).encode() + b"\n")


def read_results(path: str | Path) -> list[dict[str, Any]]:
    """What `ablate` has written so far; nothing where there is no file, and no line that is not finished."""
    if not Path(path).exists():
        return []
    *lines, _ = Path(path).read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines]

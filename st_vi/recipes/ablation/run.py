"""Variants of viPolyQwen, and their training over seeds."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict
from transformers import set_seed

from st_vi.files.folders import alone_in
from st_vi.files.lines import append_line, finished_lines, on_disk
from st_vi.losses import DLELoss
from st_vi.recipes.ablation.manifest import check_manifest, write_manifest
from st_vi.recipes.row_checks import num_positives
from st_vi.recipes.training.progress import Bar
from st_vi.recipes.vipolyqwen import build_vipolyqwen, train_vipolyqwen, vipolyqwen_evaluator
from st_vi.tasks import VIPOLYQWEN_TASKS, Task, keep_terms
from st_vi.terms import CosineAlignment, HardestNegativeMargin, InfoNCE, PairwiseRank, ScoreMSE

BASELINE = "viPolyQwen"


@dataclass(frozen=True)
class Variant:
    """viPolyQwen with one change.

    Attributes:
        build: Arguments of `build_vipolyqwen`.
        train: Arguments of `train_vipolyqwen`.
        tasks: Tasks with the terms to train.
        vision_rate: Learning rate of the vision tower relative to the rest; None for that of the study.
        warm_up: False trains all terms from the first step.
        prompts: Whether anchors have their prompt during evaluation.
    """

    build: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    tasks: tuple[Task, ...] = VIPOLYQWEN_TASKS
    vision_rate: float | None = None
    warm_up: bool = True
    prompts: bool = True


def _each_term(tasks: Iterable[Task], kind: type, **changes: Any) -> tuple[Task, ...]:
    """The same tasks with changed settings in all terms of one kind."""
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
"""The published system and variants with one change each. MSE and ranking apply to text pairs, which have scores."""


@dataclass(frozen=True)
class Study:
    """Settings shared by all variants.

    Attributes:
        base_of: Function from the seed to the folder or Hub id of the Qwen2-VL to start from.
        train_rows: Training rows, as for `train_vipolyqwen`.
        test_rows: Test rows, as for `vipolyqwen_evaluator`.
        build: Arguments of `build_vipolyqwen`.
        arguments: Stock training arguments.
        warm_up: Share of the steps with InfoNCE only; 0 for a pretrained base.
        vision_rate: As in `Variant`; the paper uses 0.1.
        base_name: Description of the base, recorded with the study.
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
        """Names of `VARIANTS` that differ from the baseline and from each other on the tasks of this study."""
        trained = {task for rows in self.train_rows.values() for task in rows["task"]}
        names: dict[str, str] = {}
        for name, variant in VARIANTS.items():
            tasks = [task for task in variant.tasks if task.name in trained]
            warm_up = bool(variant.warm_up and self.warm_up)
            names.setdefault(repr([variant.build, variant.train, tasks, self._rates(variant), warm_up]), name)
        return list(names.values())

    def check(self) -> None:
        """Check the rows before training.

        Raises:
            ValueError: There are no training or test rows, or a dataset has a single test row, which is not enough for
                an interval.
        """
        if not any(len(rows) for rows in self.train_rows.values()):
            raise ValueError("there are no rows to train on")
        if not self.test_rows:
            raise ValueError("there are no test rows")
        for kind, rows in self.test_rows.items():
            if len(rows) < 2:
                raise ValueError(f"there is {len(rows)} test row of {kind!r}: an interval needs two or more")

    def run(self, name: str, seed: int) -> dict[str, Any]:
        """Train and evaluate one variant with one seed.

        Returns:
            ``variant``, ``seed``, and by dataset ``hits`` (whether the positive of each test row ranks first); also
            ``cosines`` and ``scores`` of the rows with a score, for datasets whose scores differ.
        """
        variant = VARIANTS[name]
        base = self.base_of(seed)  # first, because creating a small model draws random numbers
        set_seed(seed)
        model = build_vipolyqwen(base, **{**self.build, **variant.build})
        with tempfile.TemporaryDirectory() as folder:
            train_vipolyqwen(
                model,
                self.train_rows,
                folder,
                loss=DLELoss(model, variant.tasks, num_positives=num_positives(self.train_rows) or 1),
                info_nce_warm_up=self.warm_up if variant.warm_up else 0.0,
                callbacks=[Bar()],
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
    """Scores of the rows that have one; empty if all are equal, because then there is no correlation."""
    scores = rows["score"][:] if "score" in rows.column_names else []
    known = {number: score for number, score in enumerate(scores) if score is not None and score == score}
    return known if len(set(known.values())) > 1 else {}


def ablate(
    study: Study, results: str | Path, seeds: Sequence[int] = (0, 1, 2), variants: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Run every variant with every seed, seed by seed. Runs that are in `results` already are not repeated.

    Args:
        study: Settings shared by the variants.
        results: A JSON Lines file to which finished runs are added. The study is recorded beside it in ``study.json``.
        seeds: Seeds for the weights of pooling and head and for the order of the rows.
        variants: Names of `VARIANTS`; None for all that differ in this study. The baseline is always included.

    Yields:
        Results of `Study.run`, old and new.

    Raises:
        ValueError: A variant is unknown or equals another in this study, there are too few test rows, or `results`
            belongs to another or an unknown study, or another run is at work in its folder.
    """
    known = study.variants()
    if unknown := set(variants or ()) - set(known):
        raise ValueError(f"unknown variants {sorted(unknown)}; in this study there are {', '.join(known)}")
    study.check()
    results = on_disk(results)
    with alone_in(results.parent):
        done = read_results(results)
        record = results.with_name("study.json")
        if results.exists() and results.stat().st_size:
            check_manifest(study, record)
        yield from done
        finished = {(result["variant"], result["seed"]) for result in done}
        for seed in seeds:
            for name in known:
                if (name, seed) in finished or not (variants is None or name in variants or name == BASELINE):
                    continue
                result = study.run(name, seed)
                write_manifest(study, record)  # only now: a study that could not begin leaves nothing behind
                append_line(results, json.dumps(result, ensure_ascii=False))
                yield result


def read_results(path: str | Path) -> list[dict[str, Any]]:
    """The complete lines that `ablate` has written so far; empty if there is no file.

    Raises:
        ValueError: A line is something else; names the line.
    """
    path, results = on_disk(path), []
    for number, line in enumerate(finished_lines(path), 1):
        try:
            result = json.loads(line)
            result["variant"], result["seed"], result["hits"]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path}, line {number}: this is no result of a study; take the line out") from error
        results.append(result)
    return results

"""Does the right answer come first? Retrieval for each task among all its answers, with text, images or both."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.evaluation import BaseEvaluator
from torch import Tensor

from st_vi.evaluation.common import report, when
from st_vi.text import comparison_key

logger = logging.getLogger(__name__)


class TaskRetrievalEvaluator(BaseEvaluator):
    """Ranks, for every row, all distinct positives of the row's task by their cosine with the anchor.

    For each task: ``recall@1``, ``recall@5``, ``recall@10`` (share of rows whose positive is among the first k),
    ``mrr`` (mean of 1/rank), ``mean_rank``, and ``chance`` (recall@1 of a random order). Ties count against the
    model, so one that maps everything to one point has no recall. Rows with the same positive text (`comparison_key`)
    share it.
    Where rows have options, ``option_accuracy``: the positive is nearer than every wrong option of its own row.
    Where they have scores, ``spearman`` of the row's cosine with the score. All tasks together:
    ``mean_recall@1``, the primary metric.

    The whole corpus is ranked, not a batch: in a batch of 12, recall@10 says nothing (viPolyQwen reports such).

    Args:
        anchors: N stock inputs: text, image, or {"text", "image"}.
        positives: N stock inputs.
        tasks: N task names.
        scores: N numbers, NaN or None where there is none.
        options: N lists of wrong answers, or None.
        prompt_names: Task to the name of the model's prompt for its anchors; None encodes all without.
        name: Put before every metric.
        batch_size: Inputs a batch.
        show_progress_bar: Show the progress of encoding.
        write_csv: Add a line to a CSV file when an output path is given.

    Attributes:
        ranks: After a call, for each task the rank (1 is the best) of every row's positive, (rows,) float, in the
            order of the rows: for intervals and for tests of significance.
        cosines: Likewise, the cosine of every row's anchor and positive.

    Raises:
        ValueError: Unequal lengths, or no rows.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from st_vi.evaluation import TaskRetrievalEvaluator
        >>> model = SentenceTransformer(modules=[BoW(vocab=["mưa", "nắng"])], device="cpu")
        >>> evaluator = TaskRetrievalEvaluator(["trời mưa", "trời nắng"], ["có mưa", "có nắng"], ["instr"] * 2)
        >>> metrics = evaluator(model)
        >>> metrics["instr_recall@1"], metrics["instr_chance"]
        (1.0, 0.5)
    """

    def __init__(
        self,
        anchors: Sequence[Any],
        positives: Sequence[Any],
        tasks: Sequence[str],
        scores: Sequence[float | None] | None = None,
        options: Sequence[Sequence[str] | None] | None = None,
        prompt_names: Mapping[str, str] | None = None,
        name: str = "",
        batch_size: int = 32,
        show_progress_bar: bool = False,
        write_csv: bool = True,
    ) -> None:
        super().__init__()
        columns = (anchors, positives, tasks, scores, options)
        lengths = {len(column) for column in columns if column is not None}
        if len(lengths) != 1 or not len(tasks):
            raise ValueError(f"anchors, positives, tasks, scores and options must have one length, got {lengths}")
        self.anchors, self.positives, self.tasks = list(anchors), list(positives), list(tasks)
        known = scores if scores is not None else [None] * len(tasks)
        self.scores = [float("nan") if score is None else float(score) for score in known]
        self.options = list(options) if options is not None else [None] * len(tasks)
        self.prompt_names = dict(prompt_names or {})
        self.name = name
        self.batch_size = batch_size
        self.show_progress_bar = show_progress_bar
        self.write_csv = write_csv
        self.ranks: dict[str, Tensor] = {}
        self.cosines: dict[str, Tensor] = {}
        self.csv_file = "task_retrieval_evaluation" + ("_" + name if name else "") + "_results.csv"
        self.primary_metric = f"{name}_mean_recall@1" if name else "mean_recall@1"

    def __call__(  # type: ignore[override]
        self, model: SentenceTransformer, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        """Return the metrics, and store them in the model's card data."""
        metrics: dict[str, float] = {}
        recalls = []
        for task in dict.fromkeys(self.tasks):
            figures = self._task_figures(model, task, [row for row, name in enumerate(self.tasks) if name == task])
            recalls.append(figures["recall@1"])
            metrics |= {f"{task}_{figure}": value for figure, value in figures.items()}
            shown = ", ".join(f"{figure} {value:.4f}" for figure, value in figures.items())
            logger.info(f"TaskRetrievalEvaluator on {task}{when(epoch, steps)}: {shown}")
        metrics["mean_recall@1"] = float(np.mean(recalls))
        path = Path(output_path, self.csv_file) if output_path is not None and self.write_csv else None
        return report(self, model, metrics, path, epoch, steps)

    def _task_figures(self, model: SentenceTransformer, task: str, rows: list[int]) -> dict[str, float]:
        # Texts are one candidate when they are the same to a reader; pictures are each their own.
        positives = {row: self.positives[row] for row in rows}
        keys = [comparison_key(item) if isinstance(item, str) else row for row, item in positives.items()]
        first = dict(zip(reversed(keys), reversed(rows), strict=True))
        candidates = list(dict.fromkeys(keys))
        texts = [positives[first[key]] for key in candidates]
        anchors = self._encode(model, [self.anchors[row] for row in rows], self.prompt_names.get(task))
        cosines = anchors @ self._encode(model, texts).T
        number = {key: index for index, key in enumerate(candidates)}
        right = torch.tensor([number[key] for key in keys])
        own = self.cosines[task] = cosines.gather(1, right[:, None]).squeeze(1)
        # Its own column is one of those at least as near: rank 1 is the best.
        ranks = self.ranks[task] = (cosines >= own[:, None]).sum(dim=1).float()

        figures = {f"recall@{k}": (ranks <= k).float().mean().item() for k in (1, 5, 10)}
        figures |= {"mrr": (1 / ranks).mean().item(), "mean_rank": ranks.mean().item(), "chance": 1 / len(candidates)}
        with_options = [i for i, row in enumerate(rows) if self.options[row]]
        if with_options:
            beaten = [
                (anchors[i] @ self._encode(model, list(self.options[rows[i]] or ())).T < own[i]).all()
                for i in with_options
            ]
            figures["option_accuracy"] = float(np.mean([bool(all_beaten) for all_beaten in beaten]))
        scores = np.array([self.scores[row] for row in rows])
        known = ~np.isnan(scores)
        if known.sum() > 1:
            figures["spearman"] = float(spearmanr(own.numpy()[known], scores[known]).statistic)
        return figures

    def _encode(self, model: SentenceTransformer, inputs: list[Any], prompt_name: str | None = None) -> Tensor:
        return (
            model.encode(
                inputs,
                prompt_name=prompt_name,
                batch_size=self.batch_size,
                show_progress_bar=self.show_progress_bar and len(inputs) > self.batch_size,
                convert_to_tensor=True,
                normalize_embeddings=True,
            )
            .float()
            .cpu()
        )

    @property
    def description(self) -> str:
        """Name of the task in the model card."""
        return "Task Retrieval"

"""Retrieval for each task among all its answers, with text, images or both."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from tqdm.auto import tqdm

from st_vi.evaluation.base import TIE, Evaluator, by_place, check_input, in_words, logger, numbers, spearman
from st_vi.inputs.content import content_key, reader_key
from st_vi.inputs.kinds import is_null, shown


class TaskRetrievalEvaluator(Evaluator):
    """Ranks, for every row, all distinct positives of the row's task by their cosine with the anchor.

    For each task: ``recall@1``, ``recall@5``, ``recall@10`` (share of rows with a right answer among the first k),
    ``mrr`` (mean of 1/rank), ``mean_rank``, and ``chance`` (recall@1 of a random order). Ties, up to
    1e-6, count against the model, so one that maps everything to one point has no recall.

    Inputs with equal content count as one: texts by `st_vi.text.comparison_key`, images by their pixels, whether they
    come as path, bytes or PIL image, and videos by their frames in their order. If several rows share an anchor, such
    as an image, the positives of all of them are right for each, as in the stock `InformationRetrievalEvaluator`, and
    the nearest determines the rank.

    Where rows have options, ``option_accuracy``: the positive is nearer than every wrong option of its own row.
    Where they have scores, ``spearman`` of the row's cosine with the score. All tasks together:
    ``mean_recall@1``, the primary metric.

    The whole corpus is ranked, not a batch: in a batch of 12, recall@10 says nothing.

    Args:
        anchors: N stock inputs: text, image, or {"text", "image", "video"}. A sequence that makes them on access need
            not hold all images: each is looked up once here, for its content, and once in every call, for its batch.
        positives: N stock inputs.
        tasks: N task names, any but "mean".
        scores: N numbers, NaN or None where there is none.
        options: N lists of wrong answers, or None.
        prompt_names: Task to the name of the model's prompt for its anchors; others have its default, if any.
        name: Put before every metric.
        batch_size: Inputs per batch.
        show_progress_bar: Show the progress, task by task.
        write_csv: Add a line to a CSV file when an output path is given.

    Attributes:
        ranks: After a call, for each task the rank (1 is best) of every row's nearest right answer, (rows,) float, in
            the order of the rows; for intervals and significance tests.
        cosines: After a call, for each task the cosine of every row's anchor and positive, (rows,).

    Raises:
        ValueError: Unequal lengths, no rows, an image that cannot be read, or a value that is no input, task, score or
            list of options (its row is named; rows count from 0).

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
        super().__init__("task_retrieval", "mean_recall@1", name, batch_size, show_progress_bar, write_csv)
        given = (anchors, positives, tasks, scores, options)
        columns = [None if column is None else by_place(column) for column in given]  # type: ignore[arg-type]
        lengths = {len(column) for column in columns if column is not None}
        anchors, positives, tasks, scores, options = columns  # type: ignore[assignment]
        if len(lengths) != 1 or not len(tasks):
            raise ValueError(f"anchors, positives, tasks, scores and options must have one length, got {lengths}")
        self.anchors, self.positives, self.tasks = anchors, positives, list(tasks)
        self.anchor_keys = [input_key(anchors[row], row, "anchors") for row in range(len(anchors))]
        self.positive_keys = [input_key(positives[row], row, "positives") for row in range(len(positives))]
        none = [None] * len(tasks)
        self.scores = numbers(none if scores is None else scores, "scores", missing=True)
        self.options = [_options(value, row) for row, value in enumerate(none if options is None else options)]
        for row, task in enumerate(self.tasks):
            if not isinstance(task, str) or not task:
                raise ValueError(f"Row {row} of tasks: expected the name of a task, got {shown(task)}")
            if task == "mean":
                raise ValueError(
                    f"Row {row} of tasks: no task can be named 'mean', as mean_recall@1 is that of all tasks"
                )
        self.prompt_names = dict(prompt_names or {})
        self.ranks: dict[str, Tensor] = {}
        self.cosines: dict[str, Tensor] = {}

    def _measure(self, model: SentenceTransformer) -> tuple[dict[str, float], str]:
        self._by_task: dict[str, dict[str, float]] = {}
        bar = tqdm(total=len(self.tasks), desc="Rows", disable=not self.show_progress_bar)
        for task in dict.fromkeys(self.tasks):
            rows = [row for row, name in enumerate(self.tasks) if name == task]
            self._by_task[task] = self._task_figures(model, task, rows)
            bar.update(len(rows))
        bar.close()
        metrics = {
            f"{task}_{name}": value for task, figures in self._by_task.items() for name, value in figures.items()
        }
        metrics["mean_recall@1"] = float(np.mean([figures["recall@1"] for figures in self._by_task.values()]))
        return metrics, f"{len(self.tasks)} rows"

    def _log(self, metrics: Mapping[str, float], size: str, when: str) -> None:
        for task, figures in self._by_task.items():
            logger.info(f"TaskRetrievalEvaluator on {task}{when}: {in_words(figures)}")

    def _task_figures(self, model: SentenceTransformer, task: str, rows: list[int]) -> dict[str, float]:
        queries = [self.anchor_keys[row] for row in rows]
        answers = [reader_key(self.positive_keys[row]) for row in rows]
        number = {key: index for index, key in enumerate(dict.fromkeys(answers))}
        first = {key: place for place, key in reversed([*enumerate(answers)])}
        right = _right_answers([*map(reader_key, queries)], [number[key] for key in answers])
        wrong = [self._wrong_options(row, right[place], number) for place, row in enumerate(rows)]

        (anchors,) = self._unit_vectors(
            model, _Rows(self.anchors, rows), keys=[queries], prompt_name=self.prompt_names.get(task)
        )
        options = [option for _, option in wrong]
        positives, of_options = self._unit_vectors(
            model,
            _Rows(self.positives, rows),
            [option for of_row in options for option in of_row],
            keys=[answers, [key for keys, _ in wrong for key in keys]],
        )
        cosines = anchors @ positives[[first[key] for key in number]].T
        own = self.cosines[task] = cosines.gather(1, torch.tensor([[number[key]] for key in answers])).squeeze(1)
        ranks = self.ranks[task] = ranks_of_right(cosines, right)

        chance = right.double().mean().item()
        figures = rank_figures(ranks) | {"mean_rank": ranks.mean().item(), "chance": chance}
        near = [
            vectors @ anchor for vectors, anchor in zip(of_options.split([*map(len, options)]), anchors, strict=True)
        ]
        beaten = [bool((of_row < mine - TIE).all()) for of_row, mine in zip(near, own, strict=True) if len(of_row)]
        if beaten:
            figures["option_accuracy"] = float(np.mean(beaten))
        scores = np.array([self.scores[row] for row in rows])
        known = ~np.isnan(scores)
        if len(np.unique(scores[known])) > 1:  # one score alone has no order
            figures["spearman"] = spearman(own.numpy()[known], scores[known])
        return figures

    def _wrong_options(
        self, row: int, right: Tensor, number: Mapping[Hashable, int]
    ) -> tuple[list[Hashable], list[Any]]:
        """The options of a row but those that another row gives as a right answer of the same query; keys first."""
        options = {reader_key(content_key(option)): option for option in self.options[row] or ()}
        own = reader_key(self.positive_keys[row])
        for key in [key for key in options if key != own and key in number and right[number[key]]]:
            del options[key]
        return list(options), list(options.values())

    def _unit_vectors(self, model: SentenceTransformer, *columns: Sequence[Any], **settings: Any) -> list[Tensor]:
        vectors = self._encode(model, *columns, show_progress_bar=False, **settings)
        return [torch.nn.functional.normalize(torch.from_numpy(column), dim=1) for column in vectors]


def ranks_of_right(scores: Tensor, right: Tensor) -> Tensor:
    """The rank of every row's best right candidate, (rows,) float, 1 is best; `TIE`s count against it, and so does NaN.

    Scores and what is right, bool, are (rows, candidates).
    """
    best = scores.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    return 1 + (~(scores < best - TIE) & ~right).sum(dim=1).float()


def rank_figures(ranks: Tensor) -> dict[str, float]:
    """``recall@1``, ``recall@5``, ``recall@10`` and ``mrr`` of ranks."""
    figures = {f"recall@{k}": (ranks <= k).float().mean().item() for k in (1, 5, 10)}
    return figures | {"mrr": (1 / ranks).mean().item()}


def input_key(value: Any, row: int, name: str) -> Hashable:
    """`content_key`; a value that is no input, or cannot be read, is named by its column and row."""
    check_input(value, row, name)
    try:
        return content_key(value)
    except ValueError as error:
        raise ValueError(f"Row {row} of {name}: {error}") from error


def _options(value: Any, row: int) -> list[Any] | None:
    if is_null(value):
        return None
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ValueError(f"Row {row}: options must be a list of texts, got {shown(value)}")
    return list(value)


class _Rows(Sequence[Any]):
    """Some rows of a column, looked up on access."""

    def __init__(self, column: Sequence[Any], rows: Sequence[int]) -> None:
        self.column, self.rows = column, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: Any) -> Any:
        return self.column[self.rows[place]]


def _right_answers(queries: Sequence[Hashable], answers: Sequence[int]) -> Tensor:
    """Which candidates are right for each row, (rows, candidates) bool: all positives of the rows with its query."""
    of_query: dict[Hashable, set[int]] = {}
    for query, answer in zip(queries, answers, strict=True):
        of_query.setdefault(query, set()).add(answer)
    right = torch.zeros(len(queries), max(answers) + 1, dtype=torch.bool)
    for row, query in enumerate(queries):
        right[row, list(of_query[query])] = True
    return right

"""The language-understanding benchmarks of the ViCLSR paper, and a reader for their files."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal

from datasets import Dataset, load_dataset

from st_vi.text import is_blank

_CANONICAL = {
    "pair": ("text1", "text2", "label"),
    "single": ("text1", "label"),
    "choice": ("text1", "options", "label"),
}


@dataclass(frozen=True)
class NLUBenchmark:
    """The columns and labels of a benchmark. Use ``dataclasses.replace`` for another layout.

    Attributes:
        name: Put before every metric.
        kind: "pair" (two texts, one label), "single" (one text, one label) or "choice" (question, passage and
            two or more options, one of them right).
        columns: Role → column of the file. Roles: pair text1, text2, label; single text1, label; choice
            passage, question, options, label.
        labels: Value in the file → label; None takes every string unchanged. Not for "choice", where the answer
            is a letter ("A" is the first option) or an index that counts from 0.
        metric: The metric that the paper reports.
        hub_id: Dataset on the Hugging Face Hub; None if there is none to download.

    Example:
        >>> from dataclasses import replace
        >>> from st_vi.evaluation import NLU_BENCHMARKS
        >>> benchmark = NLU_BENCHMARKS["ViNLI"]
        >>> replace(benchmark, columns={**benchmark.columns, "label": "label"}).columns["label"]
        'label'
    """

    name: str
    kind: Literal["pair", "single", "choice"]
    columns: Mapping[str, str]
    labels: Mapping[Any, str] | None = None
    metric: Literal["macro_f1", "accuracy"] = "macro_f1"
    hub_id: str | None = None


_BENCHMARKS = (
    NLUBenchmark(
        "ViNLI",
        "pair",
        {"text1": "sentence1", "text2": "sentence2", "label": "gold_label"},
        {label: label for label in ("entailment", "neutral", "contradiction", "other")},
    ),
    NLUBenchmark(
        "ViWikiFC",
        "pair",
        {"text1": "claim", "text2": "evidence", "label": "gold_label"},
        {"SUPPORTS": "supported", "REFUTES": "refuted", "NEI": "NEI"},
    ),
    NLUBenchmark(
        "ViFactCheck",
        "pair",
        {"text1": "Statement", "text2": "Evidence", "label": "labels"},
        {0: "supported", 1: "refuted", 2: "NEI"},
        hub_id="tranthaihoa/vifactcheck",
    ),
    NLUBenchmark(
        "UIT-ViCTSD-constructiveness",
        "single",
        {"text1": "Comment", "label": "Constructiveness"},
        {0: "non-constructive", 1: "constructive"},
        hub_id="tarudesu/ViCTSD",
    ),
    NLUBenchmark(
        "UIT-ViCTSD-toxicity",
        "single",
        {"text1": "Comment", "label": "Toxicity"},
        {0: "non-toxic", 1: "toxic"},
        hub_id="tarudesu/ViCTSD",
    ),
    NLUBenchmark(
        "ViMMRC-2.0",
        "choice",
        {"passage": "article", "question": "question", "options": "options", "label": "answer"},
        metric="accuracy",
    ),
)

NLU_BENCHMARKS: dict[str, NLUBenchmark] = {benchmark.name: benchmark for benchmark in _BENCHMARKS}
"""The benchmarks of ViCLSR's Table 4 (arXiv 2603.21084) by name.

*Inferred*: the paper names neither columns nor fields. UIT-ViCTSD has two tasks and the paper does not say which
one it reports, so both are here. ViMMRC 2.0 is expected as one row a question. ViNLI, ViWikiFC and ViMMRC 2.0 are
distributed on request.
"""


def load_benchmark(benchmark: NLUBenchmark, path_or_hub_id: str | Path | None = None, split: str = "test") -> Dataset:
    """Read a benchmark into canonical columns, and check every row.

    Canonical columns: pair text1, text2, label (str); single text1, label (str); choice text1 (the question, then
    the passage), options (list of str), label (int, index of the right option).

    Args:
        benchmark: What to read.
        path_or_hub_id: A file for `st_vi.data.read_rows`, used as the whole split; otherwise a folder or Hub id for
            ``datasets.load_dataset``. None takes the benchmark's own Hub id.
        split: Split of a folder or Hub dataset.

    Raises:
        FileNotFoundError: A data file that is not there.
        ValueError: Neither a path nor a Hub id is known; no rows; a missing column; an empty text or something
            that is no text; an unknown label. Column, row (counted from 0) and value are named.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from datasets import Dataset
        >>> from st_vi.evaluation import NLU_BENCHMARKS, load_benchmark
        >>> rows = [{"claim": "Huế ở Việt Nam.", "evidence": "Huế là cố đô.", "gold_label": "NEI"}]
        >>> with TemporaryDirectory() as folder:
        ...     _ = Dataset.from_list(rows).to_json(f"{folder}/test.jsonl")
        ...     load_benchmark(NLU_BENCHMARKS["ViWikiFC"], f"{folder}/test.jsonl")[0]
        {'text1': 'Huế ở Việt Nam.', 'text2': 'Huế là cố đô.', 'label': 'NEI'}
    """
    _check_benchmark(benchmark)
    source = benchmark.hub_id if path_or_hub_id is None else path_or_hub_id
    if source is None:
        raise ValueError(
            f"{benchmark.name} has no Hub id: such sets are distributed on request by their authors. "
            "Pass the path of a local file, such as .jsonl, .csv, .xlsx or .parquet."
        )
    from st_vi.files.read import local_path, read_rows  # the room above: one reader of files for all

    path = None if str(source).strip() and Path(source).is_dir() else local_path(source)
    rows = read_rows(path) if path else load_dataset(str(source), split=split)
    try:
        return canonical_dataset(benchmark, rows)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def _check_benchmark(benchmark: Any) -> None:
    if not isinstance(benchmark, NLUBenchmark):
        known = benchmark if isinstance(benchmark, str) and benchmark in NLU_BENCHMARKS else next(iter(NLU_BENCHMARKS))
        raise ValueError(
            f"benchmark must be an NLUBenchmark, such as NLU_BENCHMARKS[{known!r}], got {type(benchmark).__name__}"
        )


def canonical_dataset(benchmark: NLUBenchmark, dataset: Dataset) -> Dataset:
    """The rows in canonical columns; a dataset that has them already is only checked. See `load_benchmark`."""
    _check_benchmark(benchmark)
    if not isinstance(dataset, Dataset):
        raise ValueError(
            f"{benchmark.name}: expected a Dataset, got {type(dataset).__name__}; Dataset.from_list, from_pandas or "
            "from_dict make one"
        )
    raw, canonical = list(benchmark.columns.values()), list(_CANONICAL[benchmark.kind])
    present = dataset.column_names
    is_raw = set(raw) <= set(present)
    if not is_raw and not set(canonical) <= set(present):
        missing = [column for column in raw if column not in present]
        raise ValueError(
            f"{benchmark.name}: missing column(s) {missing}; the dataset has {present}: say which are its "
            f"{', '.join(benchmark.columns)}, with dataclasses.replace(benchmark, columns=…) or --columns "
            f"{next(iter(benchmark.columns))}=…"
        )
    if not len(dataset):
        raise ValueError(f"{benchmark.name}: the dataset has no rows")
    rows = enumerate(dataset.select_columns(raw if is_raw else canonical))
    return Dataset.from_list([_Row(benchmark, row, number, is_raw).canonical() for number, row in rows])


@dataclass(frozen=True)
class _Row:
    """One row on its way to canonical columns, with errors that name its place."""

    benchmark: NLUBenchmark
    values: Mapping[str, Any]
    number: int
    is_raw: bool

    def canonical(self) -> dict[str, Any]:
        if self.benchmark.kind == "choice":
            options = self.options()
            return {"text1": self.question(), "options": options, "label": self.answer(len(options))}
        texts = [role for role in _CANONICAL[self.benchmark.kind] if role != "label"]
        return {**{role: self.text(role) for role in texts}, "label": self.label()}

    def column(self, role: str) -> str:
        return self.benchmark.columns[role] if self.is_raw else role

    def text(self, role: str) -> str:
        value = self.values[self.column(role)]
        if not isinstance(value, str) or is_blank(value):
            raise self.error(role, "must hold a text that is not empty")
        return value

    def label(self) -> str:
        value, labels = self.values[self.column("label")], self.benchmark.labels
        if labels is None:
            return self.text("label")
        # Canonical labels pass, so that data that was read once can be read again.
        # Files without types have numbers as text.
        numbers = {str(number): label for number, label in labels.items() if isinstance(number, int)}
        known = {**{label: label for label in labels.values()}, **numbers, **labels}
        if isinstance(value, (list, dict)) or value not in known:
            raise self.error("label", f"must hold one of {[*dict.fromkeys(labels.values()), *labels]}")
        return known[value]

    def question(self) -> str:
        # The question first: what a tokenizer cuts off is the end of the passage.
        return f"{self.text('question')}\n{self.text('passage')}" if self.is_raw else self.text("text1")

    def options(self) -> list[str]:
        options = self.values[self.column("options")]
        if not isinstance(options, list) or len(options) < 2:
            raise self.error("options", "must hold a list of two or more texts")
        if not all(isinstance(option, str) and not is_blank(option) for option in options):
            raise self.error("options", "must hold texts that are not empty")
        return options

    def answer(self, num_options: int) -> int:
        answer = self.values[self.column("label")]
        letters = ascii_uppercase[:num_options]
        positions = {letter: position for position, letter in enumerate(letters)}
        positions |= {str(position): position for position in range(num_options)}
        index = positions.get(answer.strip().upper()) if isinstance(answer, str) else answer
        if not isinstance(index, int) or not 0 <= index < num_options:
            raise self.error("label", f"must hold one of the letters {letters} or an index below {num_options}")
        return index

    def error(self, role: str, rule: str) -> ValueError:
        column = self.column(role)
        value = reprlib.repr(self.values[column])
        return ValueError(f"{self.benchmark.name}: column {column!r} {rule}; row {self.number} has {value}")

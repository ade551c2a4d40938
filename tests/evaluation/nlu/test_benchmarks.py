from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import Dataset

from st_vi.evaluation import NLU_BENCHMARKS, NLUBenchmark, load_benchmark
from st_vi.evaluation.nlu import benchmarks as nlu_benchmarks
from st_vi.evaluation.nlu.benchmarks import canonical_dataset

VINLI, VIFACTCHECK, VIMMRC = (NLU_BENCHMARKS[name] for name in ("ViNLI", "ViFactCheck", "ViMMRC-2.0"))
FACTS = [
    {"Statement": "Trời mưa.", "Evidence": "Trời mưa to.", "labels": 0, "Topic": "thời tiết"},
    {"Statement": "Trời nắng.", "Evidence": "Trời mưa to.", "labels": 1, "Topic": "thời tiết"},
]
QUIZ = [
    {"article": "Mưa to.", "question": "Trời sao?", "options": ["Mưa", "Nắng", "Gió"], "answer": "C"},
    {"article": "Mưa to.", "question": "Có mưa không?", "options": ["Có", "Không"], "answer": 1},
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.parametrize(("suffix", "write"), [("jsonl", "to_json"), ("csv", "to_csv"), ("parquet", "to_parquet")])
def test_local_file(tmp_path: Path, suffix: str, write: str) -> None:
    path = tmp_path / f"facts.{suffix}"
    getattr(Dataset.from_list(FACTS), write)(path)
    assert load_benchmark(VIFACTCHECK, path, split="train").to_list() == [
        {"text1": "Trời mưa.", "text2": "Trời mưa to.", "label": "supported"},
        {"text1": "Trời nắng.", "text2": "Trời mưa to.", "label": "refuted"},
    ]


def test_hub_id_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(path: str, split: str) -> Dataset:
        calls.append((path, split))
        return Dataset.from_list(FACTS)

    calls: list[tuple[str, str]] = []
    monkeypatch.setattr(nlu_benchmarks, "load_dataset", load)
    load_benchmark(VIFACTCHECK, split="train")
    load_benchmark(VIFACTCHECK, "someone/copy")
    assert calls == [("tranthaihoa/vifactcheck", "train"), ("someone/copy", "test")]


def test_choice() -> None:
    # Arrow columns hold one type: letters and indices come in different files.
    letters, indices = (canonical_dataset(VIMMRC, Dataset.from_list([row])) for row in QUIZ)
    assert letters[0] == {"text1": "Trời sao?\nMưa to.", "options": ["Mưa", "Nắng", "Gió"], "label": 2}
    assert indices[0] == {"text1": "Có mưa không?\nMưa to.", "options": ["Có", "Không"], "label": 1}


@pytest.mark.parametrize(("benchmark", "rows"), [(VIFACTCHECK, FACTS), (VIMMRC, QUIZ[:1])])
def test_canonical_rows_stay(benchmark: NLUBenchmark, rows: list[dict[str, Any]]) -> None:
    once = canonical_dataset(benchmark, Dataset.from_list(rows))
    assert canonical_dataset(benchmark, once).to_list() == once.to_list()


def test_other_layout() -> None:
    benchmark = replace(
        VINLI,
        columns={"text1": "premise", "text2": "hypothesis", "label": "label"},
        labels={0: "có", 1: "không"},
    )
    rows = Dataset.from_dict({"premise": ["a"], "hypothesis": ["b"], "label": [1]})
    assert canonical_dataset(benchmark, rows)[0] == {"text1": "a", "text2": "b", "label": "không"}


def test_benchmarks_of_the_paper() -> None:
    assert {benchmark.metric for benchmark in NLU_BENCHMARKS.values() if benchmark.kind != "choice"} == {"macro_f1"}
    assert VIMMRC.metric == "accuracy"
    assert set(VINLI.labels.values()) == {"entailment", "neutral", "contradiction", "other"}
    assert [name for name, benchmark in NLU_BENCHMARKS.items() if not benchmark.hub_id] == [
        "ViNLI",
        "ViWikiFC",
        "ViMMRC-2.0",
    ]


def test_no_hub_id() -> None:
    with pytest.raises(ValueError, match=r"ViNLI .* on request.* local file"):
        load_benchmark(VINLI)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_benchmark(VINLI, tmp_path / "missing.csv")


@pytest.mark.parametrize(
    ("benchmark", "row", "change", "message"),
    [
        (VIFACTCHECK, FACTS[0], {"labels": 7}, r"'labels' must hold one of .*0, 1, 2.*row 1 has 7"),
        (VIFACTCHECK, FACTS[0], {"Evidence": " "}, r"'Evidence' .* row 1 has ' '"),
        (VIFACTCHECK, FACTS[0], {"Evidence": None}, r"'Evidence' .* row 1 has None"),
        (VIMMRC, QUIZ[0], {"question": ""}, r"'question' .* row 1 has ''"),
        (VIMMRC, QUIZ[0], {"options": ["Mưa"]}, r"'options' must hold a list of two or more"),
        (VIMMRC, QUIZ[0], {"options": ["Mưa", ""]}, r"'options' must hold texts that are not empty; row 1"),
        (VIMMRC, QUIZ[0], {"answer": "D"}, r"'answer' .* letters ABC .* row 1 has 'D'"),
        (VIMMRC, QUIZ[0], {"answer": "AB"}, r"'answer' .* row 1 has 'AB'"),
        (VIMMRC, QUIZ[1], {"answer": 2}, r"'answer' .* below 2; row 1 has 2"),
        (VIMMRC, QUIZ[1], {"answer": -1}, r"'answer' .* row 1 has -1"),
    ],
)
def test_bad_row_is_named(benchmark: NLUBenchmark, row: dict, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        canonical_dataset(benchmark, Dataset.from_list([row, {**row, **change}]))


def test_missing_column() -> None:
    rows = Dataset.from_list(FACTS).remove_columns("Evidence")
    with pytest.raises(ValueError, match=r"missing column\(s\) \['Evidence'\]; .*'Statement'.* --columns text1=…"):
        canonical_dataset(VIFACTCHECK, rows)


def test_no_rows() -> None:
    with pytest.raises(ValueError, match="no rows"):
        canonical_dataset(VIFACTCHECK, Dataset.from_list(FACTS).select([]))


@pytest.mark.parametrize("name", ["rows.csv", "rows.CSV", "rows.tsv"])
def test_files_without_types_have_numbers_as_text(tmp_path, name):
    mark = "\t" if name.endswith("tsv") else ","
    rows = [["Statement", "Evidence", "labels"], ["NA", "007", "0"], ["Cầu dài.", "Cầu ngắn.", "1"]]
    (tmp_path / name).write_text("".join(mark.join(row) + "\n" for row in rows), encoding="utf-8")
    assert load_benchmark(VIFACTCHECK, tmp_path / name).to_list() == [
        {"text1": "NA", "text2": "007", "label": "supported"},
        {"text1": "Cầu dài.", "text2": "Cầu ngắn.", "label": "refuted"},
    ]

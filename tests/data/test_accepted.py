"""What may be given for a dataset: stock's kinds, and what people have at hand; the same rows come out."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from datasets import Dataset, DatasetDict, Features, IterableDataset, IterableDatasetDict, Value
from PIL import Image

from st_vi.data import (
    accepted,
    check_task_rows,
    check_triplets,
    combine_rows,
    fact_check_to_triplets,
    instructions_to_rows,
    leakage_report,
    nli_to_triplets,
    perturbed_negatives,
    reading_comprehension_to_triplets,
    scored_pairs_to_rows,
    split_by_anchor,
    split_by_task,
)
from st_vi.data.accepted import as_dataset, as_train_rows

ROWS = [
    {"premise": "Trời mưa to.", "hypothesis": "Có mưa.", "label": "entailment"},
    {"premise": "Trời mưa to.", "hypothesis": "Trời nắng.", "label": "contradiction"},
    {"premise": "Nam ngủ.", "hypothesis": "Nam đang nghỉ.", "label": "entailment"},
]


def stream(rows):
    def one_by_one():
        yield from rows

    return IterableDataset.from_generator(one_by_one)


class LikePolars:
    """As much of polars' data frames as is used, with texts as categories; polars need not be installed."""

    columns = ()

    def __init__(self, rows):
        self.schema, self.rows = {}, rows

    def to_arrow(self):
        columns = {name: pa.array([row[name] for row in self.rows], pa.large_string()) for name in self.rows[0]}
        return pa.table({name: column.dictionary_encode() for name, column in columns.items()})

    def __arrow_c_stream__(self, requested_schema=None):
        raise AssertionError("has categories of views, from which pyarrow makes no texts")


FORMS = {
    "list": list,
    "tuple": tuple,
    "DataFrame": pd.DataFrame,
    "a DataFrame with another index": lambda rows: pd.DataFrame(rows, index=[7, 8, 9][: len(rows)]),
    "a DataFrame of categories": lambda rows: pd.DataFrame(rows).astype({"label": "category"}),
    "an Arrow table": pa.Table.from_pylist,
    "an Arrow table of views": lambda rows: pa.table(
        {n: pa.array([r[n] for r in rows], pa.string_view()) for n in rows[0]}
    ),
    "a polars DataFrame": lambda rows: LikePolars(rows),
    "stream": stream,
    "stream with types": lambda rows: Dataset.from_list(rows).to_iterable_dataset(num_shards=2),
    "columns": lambda rows: {name: [row[name] for row in rows] for name in rows[0]},
    "columns of arrays": lambda rows: {name: np.array([row[name] for row in rows]) for name in rows[0]},
    "columns of a DataFrame": lambda rows: dict(pd.DataFrame(rows, index=[7, 8, 9][: len(rows)]).items()),
}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_rows(form):
    assert as_dataset(FORMS[form](ROWS)).to_list() == ROWS
    triplets = nli_to_triplets(FORMS[form](ROWS))
    expected = nli_to_triplets(Dataset.from_list(ROWS))
    assert {name: rows.to_list() for name, rows in triplets.items()} == {n: r.to_list() for n, r in expected.items()}


@pytest.mark.parametrize("form", [list, pd.DataFrame, lambda rows: {name: [r[name] for r in rows] for name in rows[0]}])
def test_paths_and_arrays_are_pictures(form, tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    rows = as_dataset(form([{"a": tmp_path / "mèo.png", "b": array}, {"a": None, "b": torch.tensor(array)}]))
    assert rows["a"][0] == str(tmp_path / "mèo.png")
    assert [np.asarray(image).tolist() for image in rows["b"]] == [array.tolist()] * 2
    several = as_dataset([{"a": [tmp_path / "1.png", "2.png"], "b": [array, array]}])
    assert several["a"][0] == [str(tmp_path / "1.png"), "2.png"] and len(several["b"][0]) == 2
    with pytest.raises(ValueError, match=r"column 'b', row 1: .*an array \(5, 6, 7\)"):
        as_dataset(form([{"b": array}, {"b": np.zeros((5, 6, 7))}]))


def frame(**columns):
    return pd.DataFrame(columns)


@pytest.mark.parametrize(
    ("adapt", "given", "count"),
    [
        (fact_check_to_triplets, frame(evidence=["Mưa."], claim=["Có mưa."], verdict=["SUPPORTED"]), 1),
        (
            reading_comprehension_to_triplets,
            [{"question": "Ai?", "options": ["Nam", "Lan"], "answer": "A"}],
            1,
        ),
        (
            lambda rows: scored_pairs_to_rows(rows, (0, 5)),
            frame(sentence1=["Mưa."], sentence2=["Có mưa."], score=[5]),
            1,
        ),
        (instructions_to_rows, [{"instruction": "Chào hỏi.", "output": "Xin chào!"}], 1),
        (lambda rows: split_by_anchor(rows, 0.5), frame(anchor=["a", "b", "c"]), 3),
        (split_by_task, [{"anchor": "a", "task": "ocr"}, {"anchor": "b", "task": "instr"}], 2),
        (check_triplets, frame(anchor=["a"], positive=["b"]), 1),
        (perturbed_negatives, frame(anchor=["a"], positive=["Nam không ăn 3 quả cam ở chợ."]), 1),
        (lambda rows: check_task_rows(rows)[0], frame(anchor=["a"], positive=["b"], task=["ocr"]), 1),
        (
            lambda rows: combine_rows(rows, rows),
            frame(anchor=["a"], positive=["b"], task=["ocr"]),
            2,
        ),
    ],
)
def test_adapters_take_them(adapt, given, count):
    made = adapt(given)
    parts = made.values() if isinstance(made, DatasetDict) else [made]
    assert sum(map(len, parts)) == count


def test_leakage_takes_them():
    assert len(leakage_report(frame(anchor=["Mưa."]), [{"anchor": "Mưa."}]).drop()) == 1


def test_keys_that_the_first_row_lacks_are_kept():
    rows = as_dataset([{"anchor": "a"}, {"anchor": "b", "score": 0.5}])
    assert rows["score"][:] == [None, 0.5]


def test_missing_cells_of_a_frame():
    given = frame(text=["a", None], more=["b", float("nan")], number=[1.5, None], whole=[1, 2], flag=[True, False])
    rows = as_dataset(given)
    assert rows["text"][:] == ["a", None] and rows["more"][:] == ["b", None]
    assert rows["number"][0] == 1.5 and math.isnan(rows["number"][1])
    assert rows.features["whole"] == Value("int64") and rows.features["flag"] == Value("bool")


def test_missing_cells_of_typed_columns():
    given = frame(
        a=pd.array([0.5, None], "Float64"),
        b=pd.array([0.5, None], pd.ArrowDtype(pa.float64())),
        c=pd.array([1, None], "Int64"),
        d=pd.array(["x", None], "string"),
    )
    assert as_dataset(given)[1] == dict.fromkeys("abcd")


def test_pictures_come_through():
    picture = Image.new("RGB", (4, 4), "red")
    for form in ([{"anchor_image": picture}], frame(anchor_image=[picture])):
        assert as_dataset(form)[0]["anchor_image"].getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (7, "expected a Dataset, a list of dicts or a DataFrame, got int: 7"),
        ("rows.csv", "got str: 'rows.csv'"),
        (pd.Series(["a"]), "expected a Dataset, a list of dicts or a DataFrame, got Series"),
        ([("a", "b")], "got list"),
        (DatasetDict(train=Dataset.from_list(ROWS)), r"several by name, \['train'\]: give rows\['train'\]"),
        (
            [{"a": 1}, {"a": "b"}],
            r"column 'a' cannot be a column of a dataset, .* holds \['int', 'str'\], first in row 1",
        ),
        ([{"a": "b"}, {"a": "c\ud83d"}], r"column 'a', row 1: expected Unicode, .* surrogate pair, got 'c\\ud83d'"),
        (frame(a=[[1], "b"]), "column 'a' cannot be a column"),
        ({"train": {"a": ["x"]}}, r"several by name, \['train'\]"),
        ({"train": frame(a=["x"])}, r"several by name, \['train'\]"),
        ({"train": ROWS, "test": ROWS}, r"several by name, \['train', 'test'\]"),
        ({"premise": "abc", "hypothesis": "xyz", "label": "ent"}, "column 'premise' must be a list of values, .*'abc'"),
        ({"premise": 1}, "column 'premise' must be a list of values"),
        (pd.DataFrame([["a", "b"]], columns=["x", "x"]), "two columns of the table have the name 'x'"),
        (pa.Table.from_arrays([pa.array(["x"])] * 2, names=["x", "x"]), "two columns of the table have the name 'x'"),
        (pd.DataFrame([["a", "b"]], columns=[0, "0"]), "two columns of the table have the name '0'"),
    ],
)
def test_what_is_no_data_set_is_one_line(given, message):
    with pytest.raises(ValueError, match=message) as error:
        nli_to_triplets(given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["numpy", "torch", "pandas", "arrow"])
def test_formats_of_a_dataset_change_nothing(kind):
    rows = [texts(weight=0.5, task="instr", label=1)]
    formatted = Dataset.from_list(rows).with_format(kind)
    assert as_dataset(formatted).to_list() == rows == as_train_rows(DatasetDict(a=formatted))["a"].to_list()
    assert check_triplets(formatted)[0] == check_triplets(rows)[0]
    assert check_task_rows(formatted)[0][0] == check_task_rows(rows)[0][0]
    numbers = {"premise": ["a"], "hypothesis": ["b"], "label": [0]}
    triplets = nli_to_triplets(
        Dataset.from_dict(numbers).with_format(kind, columns=["label"]), labels={0: "entailment"}
    )
    assert triplets["pairs"][0] == {"anchor": "a", "positive": "b"}


def test_paths_of_arrows_views_are_pictures(tmp_path):
    Image.new("RGB", (30, 30), "red").save(path := tmp_path / "đỏ.png")
    row = {"anchor": ["a"], "anchor_image": [str(path)], "positive": ["b"], "task": ["ocr"]}
    rows, _ = check_task_rows(pa.table({name: pa.array(column, pa.string_view()) for name, column in row.items()}))
    assert rows[0]["anchor_image"].size == (30, 30)


def test_a_transform_stays():
    rows = Dataset.from_list([texts()]).with_transform(lambda batch: {name: ["z"] for name in batch})
    assert as_dataset(rows) is rows


def test_sets_by_name_to_train_on():
    several = as_train_rows({"a": frame(anchor=["x"], positive=["y"]), "b": [{"anchor": "x", "positive": "y"}]})
    assert isinstance(several, DatasetDict) and several.num_rows == {"a": 1, "b": 1}
    with pytest.raises(ValueError, match="streams by name"):
        as_train_rows(IterableDatasetDict(a=stream(ROWS)))
    with pytest.raises(ValueError, match="streams by name"):
        as_train_rows({"a": stream(ROWS), "b": Dataset.from_list(ROWS)})


@pytest.mark.parametrize("name", ["test", "validation", "Dev"])
def test_held_out_rows_are_not_trained_on(name):
    splits = {"train": [{"anchor": "x", "positive": "y"}], name: [{"anchor": "z", "positive": "y"}]}
    message = rf"the rows of \['{name}'\] would be trained on, too: give rows\['train'\]"
    for rows in (splits, DatasetDict({side: Dataset.from_list(part) for side, part in splits.items()})):
        with pytest.raises(ValueError, match=message):
            as_train_rows(rows)


def texts(**more):
    return {"anchor": "x", "positive": "y", **more}


def test_a_stream_loses_no_decimals_and_no_columns():
    rows = as_train_rows(stream([texts(weight=1), texts(weight=0.5)]))
    assert [row["weight"] for row in rows] == [1.0, 0.5]
    with pytest.raises(ValueError, match=r"column 'part', row 1: expected a whole number, .* got 0\.5"):
        list(as_train_rows(stream([texts(part=1), texts(part=0.5)])))
    with pytest.raises(ValueError, match="column 'negative', row 1: the first row of the stream has no such column"):
        list(as_train_rows(stream([texts(), texts(negative="z")])))


def test_parts_of_a_stream_have_one_type(monkeypatch):
    monkeypatch.setattr(accepted, "_CHUNK", 1)
    rows = as_dataset(stream([{"a": None}, {"a": 1, "b": "x"}, {"a": 0.5}]))
    assert rows[:] == {"a": [None, 1.0, 0.5], "b": [None, "x", None]}
    with pytest.raises(ValueError, match=r"column 'a' of the stream holds Value\('int64'\), and .*string.* before"):
        as_dataset(stream([{"a": "x"}, {"a": 1}]))


def test_a_stream_gets_the_types_of_its_first_row():
    assert as_train_rows(stream(ROWS)).features == Features({name: Value("string") for name in ROWS[0]})
    with pytest.raises(ValueError, match="no rows"):
        as_train_rows(stream([]))

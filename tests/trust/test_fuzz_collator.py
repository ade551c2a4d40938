"""Rows of any shape and content in the collator and in the check before it."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature
from hypothesis import strategies as st
from PIL import Image

from st_vi import VIPOLYQWEN_TASKS, MixedTaskCollator
from st_vi.data import check_task_rows
from tests.helpers.fuzz import (
    INF,
    NAN,
    ODD_TEXTS,
    ODD_VALUES,
    REFUSED,
    SENTENCES,
    SURROGATES,
    files,
    fuzz,
    good_texts,
    mostly_good_texts,
    odd_values,
    outcome,
    quoted,
    tables,
    texts,
)

pytestmark = pytest.mark.slow

CASES = 2_000  # with ST_VI_FUZZ=1

NAMES = [task.name for task in VIPOLYQWEN_TASKS]
SCORES = (0, 1, 0.25, NAN, None, True)
PICTURE = Image.new("RGB", (4, 3), "red")
IMAGES = (PICTURE, files()[0], {"bytes": files()[7], "path": None}, [PICTURE, PICTURE], [], None)
COLUMNS = ("anchor", "positive", "positive_2", "negative", "negative_1")
FIELDS = [*quoted(*COLUMNS), *quoted("task", "score", "teacher_scores"), "batch: teacher_scores needs"]

usually = {
    "anchor": st.one_of(*[good_texts] * 9, texts),
    "positive": st.one_of(*[good_texts] * 9, texts),
    "task": st.sampled_from(NAMES),
    "score": st.sampled_from(SCORES),
    "anchor_image": st.sampled_from(IMAGES),
    "positive_2": mostly_good_texts,
    "negative": mostly_good_texts,
    "negative_1": mostly_good_texts,
    "teacher_scores": st.sampled_from([None, None, [0.5], [NAN], (INF,), [1.0, 0.0]]),
}


@st.composite
def batches(draw: st.DrawFn) -> list[dict]:
    """Rows with the same columns but for some, and some values of quite another type."""
    optional = draw(st.lists(st.sampled_from(list(usually)[3:]), max_size=3, unique=True))
    columns = ["anchor", "positive", "task", *optional]
    rows = [{name: draw(usually[name]) for name in columns} for _ in range(draw(st.integers(1, 4)))]
    match draw(st.sampled_from(["good"] * 5 + ["value", "value", "missing", "missing everywhere"])):
        case "value":
            rows[draw(st.integers(0, len(rows) - 1))][draw(st.sampled_from(columns))] = draw(odd_values)
        case "missing":
            del rows[draw(st.integers(0, len(rows) - 1))][draw(st.sampled_from(columns))]
        case "missing everywhere":
            name = draw(st.sampled_from(columns))
            rows = [{key: value for key, value in row.items() if key != name} for row in rows]
    return rows


@fuzz(
    2000,
    rows=batches(),
    prefix_side=st.sampled_from(["anchor", "both", "none"]),
    prefix_dropout=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_batches(rows, prefix_side, prefix_dropout):
    collator = MixedTaskCollator(lambda inputs: {"inputs": inputs}, VIPOLYQWEN_TASKS, prefix_side, prefix_dropout)
    batch = outcome("collator", lambda: collator(rows), FIELDS)
    if batch is REFUSED:
        return
    candidates = [name for name in COLUMNS if name != "anchor" and name in rows[0]]
    assert set(batch) == {"label", "anchor_inputs", *(f"{name}_inputs" for name in candidates)}
    taught = any("teacher_scores" in row for row in rows)
    assert batch["label"].shape == (len(rows), 2 + taught * len(candidates))
    assert [NAMES[int(task)] for task in batch["label"][:, 0]] == [row["task"] for row in rows]
    scores = batch["label"][:, 1]
    assert (scores.isnan() | ((scores >= 0) & (scores <= 1))).all()
    for key in batch.keys() - {"label"}:
        assert len(batch[key]) == len(rows)
        for made in batch[key]:
            made = made if isinstance(made, dict) else {"text" if isinstance(made, str) else "image": made}
            assert made and made.get("text", "x").encode()  # neither is nothing
            pictures = made.get("image", PICTURE)
            assert all(isinstance(p, Image.Image) for p in (pictures if isinstance(pictures, list) else [pictures]))


arrow_images = st.sampled_from([None, None, *files()[:8] * 2, b"broken", b""])


@fuzz(
    400,
    rows=tables(
        most_rows=3,
        anchor=mostly_good_texts,
        positive=mostly_good_texts,
        task=st.sampled_from([*NAMES[1:] * 3, NAMES[0], "dịch"]),
        score=st.sampled_from([0.0, 1.0, 0.5] * 4 + [NAN, None, 4.5]),
        anchor_image=arrow_images,
        teacher_scores=st.sampled_from([None, [1.0], [0.5]] * 4 + [[NAN], [0.1, 0.2]]),
    ),
    bad_image=st.sampled_from(["error", "skip", "warn"]),
)
def test_rows_are_checked_before_training(rows, bad_image):
    names = [*FIELDS, *quoted("anchor_image"), "bad_image"]
    checked = outcome("collator", lambda: check_task_rows(rows, bad_image=bad_image), names)
    if checked is REFUSED:
        return
    kept, report = checked
    assert report.get("skipped for a bad image", 0) + len(kept) == len(rows) == sum(report.values())
    if len(kept):  # what passes here passes there
        MixedTaskCollator(lambda inputs: {"inputs": inputs})(kept.to_list())


GOOD = {"anchor": "Hỏi?", "positive": "Đáp.", "task": "instr"}


def collate(*rows):
    return MixedTaskCollator(lambda inputs: {"inputs": inputs})(list(rows))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"task": ["ocr"]}, r"unknown task\(s\) \[.*ocr.*in column 'task'"),
        ({"anchor": 3}, "row 1 of the batch, column 'anchor': expected text in 'anchor', got 3"),
        ({"anchor": "Mưa\ud83d"}, r"row 1 of the batch.*expected text in 'anchor', got 'Mưa\\ud83d'"),
        ({"positive": " \n"}, "row 1 of the batch.*neither text nor image nor video in 'positive'"),
        ({"anchor_image": b"x"}, "row 1 of the batch, column 'anchor': cannot read the image"),
        ({"score": 4.5}, "column 'score', row 1 of the batch: expected a score between 0 and 1, got 4.5"),
        ({"score": INF}, "column 'score', row 1 of the batch.*got inf"),
        ({"score": 10**400}, "column 'score', row 1 of the batch: expected a number, got 1000"),
        ({"score": "nhiều"}, "column 'score', row 1 of the batch: expected a number, got 'nhiều'"),
        ({"teacher_scores": 3}, "row 1 of the batch: teacher_scores needs one number for each"),
        ({"teacher_scores": ["x"]}, "column 'teacher_scores', row 1 of the batch: expected a number"),
        ({"teacher_scores": [1e300]}, "column 'teacher_scores', row 1 of the batch: expected a smaller number"),
    ],
)
def test_bad_rows_are_named(row, message):
    with pytest.raises(ValueError, match=message):
        collate(GOOD, GOOD | row)


def test_nothing_to_collate():
    with pytest.raises(ValueError, match="no rows"):
        collate()
    with pytest.raises(ValueError, match="missing column 'positive'"):
        collate({"anchor": "Hỏi?", "task": "instr"})


def test_teacher_scores_in_some_rows_only():
    label = collate(GOOD, GOOD | {"teacher_scores": [0.5]})["label"]
    torch.testing.assert_close(label, torch.tensor([[1, NAN, NAN], [1, NAN, 0.5]]), equal_nan=True)


def test_a_list_of_broken_pictures_is_a_bad_image():
    features = {"anchor_image": List(ImageFeature())} | dict.fromkeys(GOOD, Value("string"))
    rows = Dataset.from_list([GOOD | {"anchor_image": [b"broken"]}], features=Features(features))
    with pytest.raises(ValueError, match="column 'anchor_image', row 0: cannot read the image"):
        check_task_rows(rows)
    assert len(check_task_rows(rows, bad_image="skip")[0]) == 0


def test_a_task_that_is_a_list():
    with pytest.raises(ValueError, match=r"column 'task', row 0: expected one of .*got \['ocr'\]"):
        check_task_rows(Dataset.from_list([GOOD | {"task": ["ocr"]}]))
    with pytest.raises(ValueError, match="bad_image must be one of"):
        check_task_rows(Dataset.from_list([GOOD]), bad_image="warn")


def test_the_strategies_hold_what_they_should():
    """Odd texts are in the fuzz indeed; a pool that was cut would go unseen otherwise."""
    assert len(ODD_TEXTS) > 50 and len(ODD_VALUES) > 30 and len(SENTENCES) == 8
    assert not any(text.isascii() for text in SURROGATES)

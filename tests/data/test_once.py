"""On its way from a file to a training, a text is normalised once and an image opened once, and no check is lost."""

from __future__ import annotations

import json

import pytest
from datasets import Dataset
from PIL import Image

from st_vi.data import check_task_rows, check_triplets, nli_to_triplets, values
from st_vi.data.sources import task_rows
from st_vi.data.task_rows import combined
from st_vi.tasks import Task
from st_vi.terms import TeacherCosine
from st_vi.text import normal

NLI = {
    "premise": ["Trời mưa."] * 2 + ["Mèo ngủ."],
    "hypothesis": ["Có mưa.", "Trời nắng.", "Có mèo."],
    "label": ["entailment", "contradiction", "entailment"],
}


@pytest.fixture
def count(monkeypatch):
    """Count the calls of a function of a module."""

    def counted(module, name):
        calls, function = [], getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, **kwargs: calls.append(args) or function(*args, **kwargs))
        return calls

    return counted


@pytest.fixture
def file(tmp_path):
    def saved(name, *pictures):
        for number, colour in enumerate(pictures):
            Image.new("RGB", (20 + number, 10), colour).save(tmp_path / f"{colour}.png")
        rows = [
            {"anchor": "Màu gì?", "anchor_image": f"{colour}.png", "positive": colour, "task": "ocr"}
            for colour in pictures
        ]
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        return tmp_path / name

    return saved


def test_a_text_is_normalised_once(count):
    calls = count(normal, "mend")
    made = nli_to_triplets(Dataset.from_dict(NLI))
    texts = [args[0] for args in calls]
    assert check_triplets(made) is made
    assert [texts.count(text) for text in ("Có mưa.", "Trời nắng.", "Có mèo.")] == [1, 1, 1]
    assert len(calls) == len(texts)


def test_what_is_changed_is_checked_again():
    made = nli_to_triplets(Dataset.from_dict(NLI))
    emptied = made["triplets"].map(lambda row: {"positive": " "})
    with pytest.raises(ValueError, match="column 'positive', row 0: expected non-empty text, got ' '"):
        check_triplets(emptied)
    made["triplets"].set_transform(lambda rows: {name: [""] * len(texts) for name, texts in rows.items()})
    with pytest.raises(ValueError, match="dataset 'triplets': column 'anchor', row 0: expected non-empty text"):
        check_triplets(made)


def test_a_picture_is_opened_once(file, count):
    calls = count(values, "open_stored")
    rows, report = task_rows([file("a.jsonl", "red", "blue"), file("b.jsonl", "green")])
    seen = []
    checked, again = check_task_rows(rows, fits=seen.append)
    assert checked is rows and report == again == {"ocr": 3}
    assert len(calls) == 3 and seen == [[(20, 10)], [(21, 10)], [(20, 10)]]


def test_other_tasks_are_another_check(file, count):
    rows, _ = task_rows([file("a.jsonl", "red")])
    calls = count(values, "open_stored")
    with pytest.raises(ValueError, match=r"column 'task', row 0: expected one of \['text_pair'\]"):
        check_task_rows(rows, [Task("text_pair", "", (TeacherCosine(),))])
    check_task_rows(rows.select([0]))
    assert len(calls) == 1


def test_sets_with_vectors_of_two_sizes_are_checked_together():
    tasks = [Task("texts", "", (TeacherCosine(),))]
    parts = [
        check_task_rows([{"anchor": "Mưa.", "anchor_teacher": [0.5] * size, "task": "texts"}], tasks)[0]
        for size in (2, 3)
    ]
    with pytest.raises(ValueError, match="column 'anchor_teacher', row 1: expected 2 finite numbers"):
        check_task_rows(combined(parts), tasks)

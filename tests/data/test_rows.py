"""Reading, splitting, checking, and the shipped sample sets."""

from __future__ import annotations

import re

import pytest
from datasets import Dataset, concatenate_datasets
from PIL import Image

from st_vi.data import check_triplets, nli_to_triplets, read_rows, sample_nli, split_by_anchor
from st_vi.data.sources import say_what_is_in_both


def test_split_keeps_anchors_together_and_depends_on_them_alone():
    rows = sample_nli()
    sides = split_by_anchor(rows, test_size=0.3)
    train, test = set(sides["train"]["premise"]), set(sides["test"]["premise"])
    assert not train & test and len(train | test) == len(set(rows["premise"]))
    assert 0.2 < len(test) / len(train | test) < 0.4
    shuffled = split_by_anchor(rows.shuffle(seed=1).select(range(500)), test_size=0.3)
    assert set(shuffled["test"]["premise"]) <= test
    doubled = split_by_anchor(concatenate_datasets([rows, rows]), test_size=0.3)
    assert set(doubled["test"]["premise"]) == test
    assert set(split_by_anchor(rows, test_size=0.3, seed=1)["test"]["premise"]) != test


def test_split_of_triplets_and_bad_sizes():
    triplets = nli_to_triplets(sample_nli())["triplets"]
    assert set(split_by_anchor(triplets)) == {"train", "test"}
    for size in (1.0, "0.2", None):
        with pytest.raises(ValueError, match="test_size must lie between 0 and 1"):
            split_by_anchor(triplets, test_size=size)


def test_jsonl_rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('\ufeff{"premise": "Trời mưa.", "label": 0}\n\n{"premise": "Nắng.", "genre": "tin"}\n', "utf-8")
    assert read_rows(path).to_list() == [
        {"premise": "Trời mưa.", "label": 0, "genre": None},
        {"premise": "Nắng.", "label": None, "genre": "tin"},
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n{"a": \n', "line 2: not JSON"),
        (b'{"a": "x"}\n{"a": "\xff"}\n', "line 2: not UTF-8"),
        (b'{"a": 1}\n[1]\n', "line 2: expected a JSON object, got list"),
        (b'{"a": 1}\n{"a": 2.5}\n{"a": "x"}\n', "line 3: column 'a' holds 'x' beside float"),
    ],
)
def test_broken_lines_are_named(tmp_path, content, message):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path)) + ", " + message):
        read_rows(path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"anchor": ["a"]}, "missing column 'positive'"),
        ({"anchor": [], "positive": []}, "no usable pair"),
        ({"anchor": ["a", ""], "positive": ["b", "c"]}, r"column 'anchor', row 1"),
        ({"anchor": ["a"], "positive": [3]}, r"column 'positive', row 0: expected non-empty text, got 3"),
        ({"anchor": ["a"], "positive": ["b"], "negative_1": ["c"], "negative_2": ["b "]}, r"'negative_2', row 0"),
    ],
)
def test_triplets_that_cannot_be_trained_on(columns, message):
    with pytest.raises(ValueError, match=message):
        check_triplets(Dataset.from_dict(columns))


def test_pictures_are_split_by_what_they_show_and_not_by_the_question(tmp_path):
    paths = []
    for number in range(40):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.new("RGB", (4, 4), (number, 0, 0)).save(paths[-1])
    asked = ["Trong ảnh có chữ gì?", "Có màu gì?"]
    rows = Dataset.from_dict({"anchor": asked * 40, "anchor_image": [path for path in paths for _ in asked]})
    sides = split_by_anchor(rows, test_size=0.5)
    shown = [set(sides[side]["anchor_image"]) for side in ("train", "test")]
    assert all(shown) and not shown[0] & shown[1]


def test_held_out_rows_that_are_training_rows_are_said(caplog):
    def rows(*texts, image=None):
        return Dataset.from_list([{"anchor": text, "positive": "Có mưa.", "anchor_image": image} for text in texts])

    train = rows("Hòa bình.", "Trời mưa.")
    say_what_is_in_both(train, rows("Trời nắng."))
    say_what_is_in_both(train, rows("Trời mưa.", image="a.png"))
    assert not caplog.records
    say_what_is_in_both(train, rows("Trời  mưa.", "Hoà bình.", "Trời nắng.").remove_columns("anchor_image"))
    assert "2 of 3 held-out rows are training rows" in caplog.text

"""Label names and values as people write them."""

from __future__ import annotations

import logging

import pytest
from datasets import ClassLabel, Dataset, Features

from st_vi.data import nli_to_triplets
from st_vi.data.labels import canonical_labels


def labels(values, given=None, feature=None):
    features = Features({"label": feature}) if feature else None
    return canonical_labels(Dataset.from_dict({"label": values}, features=features), "label", given)


@pytest.mark.parametrize(
    ("label", "names"),
    [
        ("entailment", "kéo theo|Kéo Theo|KÉO THEO|keo theo|kéo_theo|kéo-theo|kéo  theo |hàm ý|Suy ra|ủng hộ|SUPPORTS"),
        ("contradiction", "mâu thuẫn|Mâu thuẫn|mau_thuan|MÂU-THUẪN|bác bỏ|Bac bo|trái ngược|REFUTES"),
        ("neutral", "trung lập|Trung tính|TRUNG_LAP|không xác định|không đủ thông tin|NOT ENOUGH INFO|nei"),
        ("other", "khác|Other"),
    ],
)
def test_names_in_both_languages(label, names):
    names = names.split("|")
    assert labels(names) == [label] * len(names)
    assert labels(["ke\u0301o theo", "trung la\u0323\u0302p"]) == ["entailment", "neutral"]  # NFD


def test_true_and_false_are_verdicts_and_nothing_else():
    assert labels(["Đúng", "sai", "không xác định"]) == ["entailment", "contradiction", "neutral"]
    assert labels(["DUNG", "Sai"]) == ["entailment", "contradiction"]
    with pytest.raises(ValueError, match="row 1: unknown label"):
        labels(["entailment", "sai"])
    assert labels(["entailment", "sai"], {"sai": "neutral"}) == ["entailment", "neutral"]


@pytest.mark.parametrize("key", [1, "1", 1.0, " 1 "])
@pytest.mark.parametrize("value", [1, "1", 1.0, "1.0", " 1"])
def test_a_number_is_the_same_however_it_is_written(key, value):
    assert labels([value], {key: "mâu thuẫn"}) == ["contradiction"]


def test_true_false_and_numbers_that_are_names():
    assert labels([True, False], {True: "entailment", False: "refuted"}) == ["entailment", "contradiction"]
    assert labels(["TRUE", "false"], {True: "entailment", False: "refuted"}) == ["entailment", "contradiction"]
    assert labels([True, False], {"1": "entailment", 0: "refuted"}) == ["entailment", "contradiction"]
    assert labels(["01", "1"], {"01": "entailment", 1: "neutral"}) == ["entailment", "neutral"]  # text stays text
    assert labels([0, 1], feature=ClassLabel(names=["kéo theo", "mâu thuẫn"])) == ["entailment", "contradiction"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["entailment", "neutral"], r"labels must map values to names, such as \{0: 'entailment'\}, got \['entail"),
        ("entailment", "labels must map values to names"),
        ({0: "entailment", "0": "neutral"}, "labels: '0' is there twice, as 'entailment' and as 'neutral'"),
        ({"entailment": 0}, "labels: 'entailment' is mapped to 0; use one of"),
    ],
)
def test_what_maps_no_labels(given, message):
    with pytest.raises(ValueError, match=message):
        labels([0], given)


def test_a_mapping_that_maps_nothing_is_said(caplog):
    rows = Dataset.from_dict({"premise": ["a", "a"], "hypothesis": ["b", "c"], "label": ["yes", "refuted"]})
    with caplog.at_level(logging.WARNING):
        nli_to_triplets(rows, labels={"yess": "contradiction", "refuted": "contradiction"})
    assert "labels: no row has the value 'yess'; the column holds 'refuted', 'yes'" in caplog.text

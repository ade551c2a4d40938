"""Negatives made of positives and found in documents: every row against the rules, one at a time."""

from __future__ import annotations

import random
import unicodedata

import pytest
from datasets import Dataset

from st_vi.data import (
    change_order,
    check_triplets,
    nli_to_triplets,
    perturbed_negatives,
    same_document_negatives,
    sample_nli,
    strip_diacritics,
    swap_negation,
    swap_number,
)
from st_vi.data.negatives.made import rows_of

RULES = {"order": change_order, "negation": swap_negation, "number": swap_number, "diacritics": strip_diacritics}


def pairs() -> Dataset:
    """Entailments of the sample set, under half as many anchors."""
    rows = sample_nli("test").filter(lambda label: label == "entailment", input_columns="label").select(range(60))
    anchors = [rows["premise"][row - row % 2] for row in range(60)]
    return Dataset.from_dict({"anchor": anchors, "positive": rows["hypothesis"]})


def flat(triplets) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(row.anchor, row.positive, row.negatives) for row in rows_of(triplets)]


@pytest.mark.slow
@pytest.mark.parametrize("per_row", [1, 2, 4])
def test_perturbed_negatives_are_what_the_rules_give(per_row):
    rows = perturbed_negatives(pairs(), kinds=[*RULES], per_row=per_row)
    check_triplets(rows)
    counts = dict.fromkeys(RULES, 0)
    for _, positive, negatives in flat(rows):
        possible = {rule(positive): kind for kind, rule in RULES.items() if rule(positive) not in (None, positive)}
        assert len(negatives) == min(per_row, len(possible)) == len(set(negatives))
        for negative in negatives:
            counts[possible[negative]] += 1
    assert all(counts.values())
    assert {kind: rows.report[f"negatives by {kind}"] for kind in RULES} == counts
    assert rows.report["rows read"] == 60 == sum(len(part) for part in rows.values())


@pytest.mark.slow
def test_what_a_row_gets_does_not_depend_on_other_rows():
    random.seed(1)
    every = {row[:2]: row[2] for row in flat(perturbed_negatives(pairs()))}
    half = flat(perturbed_negatives(pairs().select(range(30, 60))))
    assert all(every[row[:2]] == row[2] for row in half)
    assert {row[:2]: row[2] for row in flat(perturbed_negatives(pairs(), seed=1))} != every


def test_marks_are_left_out_unless_asked_for():
    rows = perturbed_negatives(pairs(), per_row=3)
    assert all(strip_diacritics(positive) not in negatives for _, positive, negatives in flat(rows))


def test_rows_where_no_rule_applies():
    rows = Dataset.from_dict({"anchor": ["Thời tiết?", "Tàu đâu?"], "positive": ["Nắng.", "Tàu chưa vào ga."]})
    kept = perturbed_negatives(rows, kinds=["negation", "number"])
    assert {name: part.num_rows for name, part in kept.items()} == {"pairs": 1, "triplets": 1}
    assert kept["pairs"]["positive"][:] == ["Nắng."]
    alone = perturbed_negatives(rows, kinds="negation", missing_negative="skip")
    assert flat(alone) == flat(perturbed_negatives(rows, kinds=["negation"], missing_negative="skip"))
    dropped = perturbed_negatives(rows, kinds=["negation", "number"], missing_negative="skip")
    assert list(dropped) == ["triplets"]
    assert dropped.report["rows without a negative, skipped"] == 1
    with pytest.raises(ValueError, match="no usable pair"):
        perturbed_negatives(rows.select([0]), kinds=["negation"], missing_negative="skip")


def test_a_change_that_gives_a_right_text_does_not_count():
    """The turned negation is the anchor, another positive of the anchor, or a negative already there."""
    columns = {"anchor": ["Tàu đâu?"] * 2, "positive": ["Tàu chưa vào ga.", "Tàu vào ga."]}
    assert list(perturbed_negatives(Dataset.from_dict(columns), kinds=["negation"])) == ["pairs"]
    rows = Dataset.from_dict({"anchor": ["Tàu vào ga."], "positive": ["Tàu chưa vào ga."]})
    assert list(perturbed_negatives(rows, kinds=["negation"])) == ["pairs"]
    rows = Dataset.from_dict({"anchor": ["Tàu?"], "positive": ["Tàu chưa vào ga."], "negative": ["Tàu vào ga."]})
    assert flat(perturbed_negatives(rows, kinds=["negation"])) == [("Tàu?", "Tàu chưa vào ga.", ("Tàu vào ga.",))]


@pytest.mark.slow
def test_negatives_and_weights_that_are_there_stay():
    triplets = nli_to_triplets(sample_nli("test"), neutral="weak_positive")
    rows = perturbed_negatives(triplets, kinds=["order"])
    before = {(row.anchor, row.positive): row for row in rows_of(triplets)}
    assert len(before) == sum(len(part) for part in rows.values())
    for row in rows_of(rows):
        old = before[row.anchor, row.positive]
        assert row.negatives[: len(old.negatives)] == old.negatives and row.weight == old.weight
    assert {row.weight for row in before.values()} == {0.5, 1.0}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kinds": []}, "kinds must be some of"),
        ({"kinds": ["typo"]}, "kinds must be some of"),
        ({"kinds": ["order", "order"]}, "each once"),
        ({"per_row": 4}, "per_row must lie between 1 and the number of kinds, 3"),
        ({"per_row": 0}, "per_row"),
        ({"order": "sort"}, "order must be one of"),
        ({"missing_negative": "keep"}, "missing_negative must be one of"),
    ],
)
def test_what_perturbed_negatives_refuse(arguments, message):
    with pytest.raises(ValueError, match=message):
        perturbed_negatives(pairs(), **arguments)


def test_bad_rows_are_named():
    with pytest.raises(ValueError, match="column 'positive', row 1"):
        perturbed_negatives(Dataset.from_dict({"anchor": ["a", "b"], "positive": ["c", ""]}))
    with pytest.raises(ValueError, match="column 'weight', row 0: expected a number"):
        rows_of(Dataset.from_dict({"anchor": ["a"], "positive": ["c"], "weight": ["x"]}))


def documents() -> Dataset:
    """Nine questions on three documents; a passage stands there twice, once decomposed."""
    passages = ["Chợ họp sớm.", "Ghe đầy trái cây.", "Bến có quán cháo.", "Đèo dài hai mươi cây số."]
    passages += ["Trên đèo hay có sương.", "Đỉnh đèo có bia đá.", "Nhà thờ xây năm 1880.", "Tháp cao."]
    passages = [*passages, unicodedata.normalize("NFD", passages[0])]
    names = ["chợ"] * 3 + ["đèo"] * 3 + ["nhà thờ"] * 2 + ["chợ"]
    anchors = [f"Câu hỏi {number}?" for number in range(9)]
    anchors[7] = anchors[6]  # two right passages of one question
    return Dataset.from_dict({"anchor": anchors, "positive": passages, "document": names})


@pytest.mark.parametrize("per_row", [1, 2, 5])
def test_same_document_negatives(per_row):
    data = documents()
    rows = same_document_negatives(data, per_row=per_row)
    texts = [unicodedata.normalize("NFC", text) for text in data["positive"]]
    expected = {}
    for anchor, own, name in zip(data["anchor"], texts, data["document"], strict=True):
        right = {text for other, text in zip(data["anchor"], texts, strict=True) if other == anchor}
        found = {text for text, document in zip(texts, data["document"], strict=True) if document == name} - right
        expected[anchor, own] = found
    assert len(rows_of(rows)) == 9
    for anchor, positive, negatives in flat(rows):
        possible = expected[anchor, positive]
        assert set(negatives) <= possible and len(negatives) == len(set(negatives)) == min(per_row, len(possible))
    assert rows.report["documents"] == 3
    assert rows.report["negatives added"] == sum(len(negatives) for *_, negatives in flat(rows))
    assert rows["pairs"]["anchor"][:] == ["Câu hỏi 6?"] * 2  # both passages of this document are right


def test_the_draw_among_a_document_depends_on_the_seed():
    rows = [flat(same_document_negatives(documents(), seed=seed)) for seed in (0, 0, 1, 2, 3)]
    assert rows[0] == rows[1] and len({str(row) for row in rows}) > 1


def test_an_anchor_is_no_negative_of_its_own():
    rows = {"anchor": ["Mưa to.", "Gió?"], "positive": ["Mưa lớn.", "Mưa to."], "document": [1, 1]}
    found = flat(same_document_negatives(Dataset.from_dict(rows)))
    assert sorted(found) == [("Gió?", "Mưa to.", ("Mưa lớn.",)), ("Mưa to.", "Mưa lớn.", ())]


def test_what_same_document_negatives_refuse():
    with pytest.raises(ValueError, match="missing column 'article'"):
        same_document_negatives(documents(), document="article")
    with pytest.raises(ValueError, match="per_row must be a whole number of at least 1"):
        same_document_negatives(documents(), per_row=0)
    with pytest.raises(ValueError, match="missing_negative must be one of"):
        same_document_negatives(documents(), missing_negative="keep")
    for nothing in (None, " "):  # rows of no document are not of one
        rows = Dataset.from_dict({"anchor": ["a", "b"], "positive": ["x", "y"], "document": ["1", nothing]})
        with pytest.raises(ValueError, match="column 'document', row 1: expected the name of a document"):
            same_document_negatives(rows)

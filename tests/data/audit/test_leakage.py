"""Leaks that were planted, and every near one against all pairs at once."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
import pytest
from datasets import Dataset
from sklearn.feature_extraction.text import TfidfVectorizer

from st_vi.data import nli_to_triplets, sample_nli, split_by_anchor
from st_vi.data.audit import leakage
from st_vi.data.audit.leakage import leakage_report, without_leakage


def rows(**columns):
    return Dataset.from_dict({name: texts.split("|") for name, texts in columns.items()})


TEST = rows(
    anchor="Chợ họp sáng.|Tàu vào ga.|Tàu vào ga.|Mẹ nấu canh.", positive="Sáng có chợ.|Tàu đến.|Tàu đến.|Canh chua."
)


def test_every_kind_and_the_worst_comes_first():
    train = rows(
        anchor="Bé ngủ trưa.|Tàu  vào ga.|Tàu vào ga.|Ông pha trà.|Bé ngủ trưa.|Hội làng mở sáng mai.",
        positive="Bé đang ngủ.|Tàu rời đi.|Tàu đến.|Canh chua.|Bé đang ngủ.|Có hội.",
    )
    report = leakage_report(train, TEST, near=None)
    found = [(leak.kind, leak.train_row, leak.test_row, leak.train_text) for leak in report.leaks]
    assert found == [
        ("row", 2, 1, "Tàu vào ga. | Tàu đến."),
        ("anchor", 1, 1, "Tàu vào ga."),
        ("text", 3, 3, "Canh chua."),
    ]
    assert report.repeated_train == (4,) and report.repeated_test == (2,)
    assert report.drop() == [1, 2, 3] and report.drop(["text", "row"]) == [2, 3]
    assert report.drop("row") == report.drop(["row"])
    assert report.counts["leaks by anchor"] == 1 and report.counts["test rows leaked"] == 2
    kept = without_leakage(train, TEST, near=None, kinds=["row", "anchor"])
    assert kept.to_list() == [train[row] for row in (0, 3, 4, 5)]
    with pytest.raises(ValueError, match="kinds must be among"):
        report.drop(["rows"])


@pytest.mark.parametrize(
    ("text", "settings", "leaks"),
    [
        (unicodedata.normalize("NFD", "Mẹ \tnấu canh."), {}, True),
        ("MẸ NẤU CANH.", {}, False),
        ("MẸ NẤU CANH.", {"casefold": True}, True),
        ("Me nau canh.", {"casefold": True}, False),
        ("Me nau canh.", {"ignore_diacritics": True}, True),
        ("ME NAU CANH.", {"ignore_diacritics": True}, False),
        ("ME NAU CANH.", {"ignore_diacritics": True, "casefold": True}, True),
    ],
)
def test_forms_of_one_text(text, settings, leaks):
    assert bool(leakage_report(rows(anchor=text), TEST, near=None, **settings).leaks) == leaks


def test_near_is_case_and_punctuation_but_not_another_sentence():
    train = rows(anchor="TÀU VÀO GA!|Tàu vào gara.|Ghe chở dừa.")
    report = leakage_report(train, TEST, near=0.6, columns=["anchor"])
    found = {leak.train_row: (leak.kind, leak.test_text, leak.similarity) for leak in report.leaks}
    assert found[0] == ("near", "Tàu vào ga.", pytest.approx(1.0))
    assert found[1][:2] == ("near", "Tàu vào ga.") and 0.6 <= found[1][2] < 1
    assert 2 not in found


@pytest.mark.parametrize("chunk", [3, 1024])
def test_near_equals_all_pairs_at_once(monkeypatch, chunk):
    """In blocks of 3 × 12 or in one: each text's nearest, by the dense product."""
    monkeypatch.setattr(leakage, "CHUNK", chunk)
    texts = sample_nli()["hypothesis"][:120]
    train, test = texts[::2], texts[1::2]
    train[7], train[40] = test[50].replace("ng", "n"), test[3] + " Thật vậy."
    plain = [re.sub(r"[\W_]+", " ", text.casefold()) for text in [*train, *test]]
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 4)).fit_transform(plain).toarray()
    cosines = vectors[: len(train)] @ vectors[len(train) :].T
    near = float(np.sort(cosines.max(axis=1))[-12]) - 1e-3
    expected = {row: (cosines[row].argmax(), cosines[row].max()) for row in np.flatnonzero(cosines.max(axis=1) >= near)}
    report = leakage_report(Dataset.from_dict({"anchor": train}), Dataset.from_dict({"anchor": test}), near=near)
    assert {leak.train_row: leak.test_row for leak in report.leaks} == {row: at for row, (at, _) in expected.items()}
    assert {7, 40} < {*expected} and len(expected) == 12
    for leak in report.leaks:
        assert leak.similarity == pytest.approx(expected[leak.train_row][1], abs=1e-5)
    similarities = [leak.similarity for leak in report.leaks]
    assert similarities == sorted(similarities, reverse=True)


@pytest.mark.slow
def test_columns_usual_named_and_different():
    triplets = nli_to_triplets(sample_nli("train"))["triplets"]
    nli = sample_nli("train")
    report = leakage_report(triplets, nli, near=None)  # anchor, positive, negative; premise, hypothesis
    assert report.counts["leaks by row"] == len(triplets)
    assert leakage_report(triplets, sample_nli("test"), near=None).leaks == ()
    questions = rows(question="Chợ họp lúc nào?", context="Chợ họp sáng.")
    assert leakage_report(questions, TEST, columns=["question"], test_columns=["positive"]).leaks == ()
    (leak,) = leakage_report(questions, TEST, ["question", "context"], ["anchor"]).leaks
    assert (leak.kind, leak.test_row) == ("text", 0)


@pytest.mark.slow
def test_a_split_by_anchor_shares_no_anchor():
    sides = split_by_anchor(sample_nli(), test_size=0.3)
    kinds = {leak.kind for leak in leakage_report(sides["train"], sides["test"], near=None).leaks}
    assert not kinds & {"row", "anchor"}


def test_nothing_to_compare_and_bad_input():
    empty = Dataset.from_dict({"anchor": []})
    assert leakage_report(TEST, empty).leaks == leakage_report(empty, TEST).leaks == ()
    assert leakage_report(rows(anchor="…"), rows(anchor="?!")).leaks == ()  # no letters: nothing is near
    with pytest.raises(ValueError, match="near must lie above 0"):
        leakage_report(TEST, TEST, near=0.0)
    with pytest.raises(ValueError, match="no column is named to compare; the columns are"):
        leakage_report(TEST, TEST, columns=[])
    with pytest.raises(ValueError, match=r"missing columns \['question'\]"):
        leakage_report(TEST, TEST, columns=["question"])
    with pytest.raises(ValueError, match="column 'positive', row 1"):
        leakage_report(rows(anchor="a|b", positive="c| "), TEST)

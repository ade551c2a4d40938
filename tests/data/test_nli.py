"""NLI rows against brute-force definitions, shipped ones and awkward ones; and label names as people write them."""

from __future__ import annotations

import logging
import unicodedata
from collections import Counter
from decimal import Decimal

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from st_vi.data import fact_check_to_triplets, nli_to_triplets, sample_nli
from st_vi.data.nli import canonical_labels


def nli(*rows, **features):
    premise, hypothesis, label = zip(*rows, strict=True)
    return Dataset.from_dict({"premise": premise, "hypothesis": hypothesis, "label": label}, **features)


E, N, C = "entailment", "neutral", "contradiction"


def test_every_triplet_is_an_entailment_and_a_contradiction_of_its_anchor():
    rows = sample_nli()
    triplets = nli_to_triplets(rows)
    label = {(row["premise"], row["hypothesis"]): row["label"] for row in rows}
    assert list(triplets) == ["triplets"] and len(triplets["triplets"]) == len(set(rows["premise"]))
    for row in triplets["triplets"]:
        assert label[row["anchor"], row["positive"]] == E
        assert label[row["anchor"], row["negative"]] == C


def test_counts_that_differ_are_cycled():
    rows = nli(*[("p", f"e{i}", E) for i in range(5)], ("p", "c0", C), ("p", "c1", C))
    made = nli_to_triplets(rows)["triplets"]
    assert sorted(made["positive"]) == [f"e{i}" for i in range(5)]
    assert sorted(Counter(made["negative"]).values()) == [2, 3]  # each as often as can be
    assert nli_to_triplets(rows)["triplets"]["negative"][:] == made["negative"][:]
    orders = {tuple(nli_to_triplets(rows, seed=seed)["triplets"]["negative"]) for seed in range(20)}
    assert len(orders) == 2


def test_the_choice_for_one_anchor_depends_on_no_other_row():
    rows = [("p", f"e{i}", E) for i in range(3)] + [("p", f"c{i}", C) for i in range(3)]
    alone = nli_to_triplets(nli(*rows))["triplets"].to_list()
    among = nli_to_triplets(nli(("q", "x", E), ("q", "y", C), *rows))["triplets"].to_list()
    assert [row for row in among if row["anchor"] == "p"] == alone


@pytest.mark.parametrize(
    ("neutral", "expected"),
    [
        ("skip", {"triplets": [("p", "e", "c")]}),
        ("hard_negative", {"2_negatives": [("p", "e", "c", "n")]}),
        ("weak_positive", {"triplets": [("p", "e", "c", 1.0), ("p", "n", "c", 0.5)]}),
    ],
)
def test_neutral_modes(neutral, expected):
    made = nli_to_triplets(nli(("p", "e", E), ("p", "n", N), ("p", "c", C)), neutral=neutral)
    assert {name: [tuple(row.values()) for row in part] for name, part in made.items()} == expected


def test_missing_negatives():
    rows = nli(("p", "e", E), ("p", "c", C), ("q", "f", E), ("r", "d", C))
    pairs = nli_to_triplets(rows)
    assert pairs["pairs"].to_list() == [{"anchor": "q", "positive": "f"}]
    assert pairs.report["anchors without a positive"] == 1
    dropped = nli_to_triplets(rows, missing_negative="skip")
    assert list(dropped) == ["triplets"]
    assert dropped.report["positives without a negative, skipped"] == 1


def test_reverse_uses_the_hypothesis_as_anchor():
    made = nli_to_triplets(nli(("p", "h", E), ("q", "h", C)), reverse=True)
    assert made["triplets"].to_list() == [{"anchor": "h", "positive": "p", "negative": "q"}]


def test_anchors_are_one_after_nfc_and_collapsed_whitespace():
    decomposed = unicodedata.normalize("NFD", "Trời  mưa ở\tHuế.")
    made = nli_to_triplets(nli(("Trời mưa ở Huế.", "e", E), (decomposed, "c", C)))
    assert made["triplets"].to_list() == [{"anchor": "Trời mưa ở Huế.", "positive": "e", "negative": "c"}]


def test_duplicates_are_dropped_and_counted():
    made = nli_to_triplets(nli(("p", "e", E), ("p", "e", E), ("p", " e ", E), ("p", "c", C)))
    assert len(made["triplets"]) == 1
    assert made.report["duplicates skipped"] == 2


def test_a_text_as_positive_and_negative():
    rows = nli(("p", "e", E), ("p", "x", E), ("p", "c", C), ("p", "x", C), ("p", "x", N))
    with pytest.raises(ValueError, match=r"column 'hypothesis', row 3: positive and negative are equal.*got 'x'"):
        nli_to_triplets(rows)
    made = nli_to_triplets(rows, conflict="skip")
    assert made["triplets"].to_list() == [{"anchor": "p", "positive": "e", "negative": "c"}]
    assert made.report["conflicts skipped"] == 2
    # A neutral that is also an entailment matters only where neutrals are used.
    only_neutral = nli(("p", "e", E), ("p", "e", N), ("p", "c", C))
    assert len(nli_to_triplets(only_neutral)["triplets"]) == 1
    with pytest.raises(ValueError, match="row 1"):
        nli_to_triplets(only_neutral, neutral="hard_negative")


@pytest.mark.parametrize(
    ("label", "known"),
    [("SUPPORTS", E), ("Refuted", C), ("contradictory", C), ("NEI", N), (" yes ", E), ("other", "other")],
)
def test_label_names(label, known):
    report = nli_to_triplets(nli(("p", "e", E), ("q", "x", label))).report
    assert report[known] == (2 if known == E else 1)


def test_integer_labels_need_a_mapping_or_names():
    rows = [("p", "e", 0), ("p", "c", 2)]
    with pytest.raises(ValueError, match=r"column 'label', row 0: unknown label \(the column holds 0, 2;.*got 0"):
        nli_to_triplets(nli(*rows))
    assert len(nli_to_triplets(nli(*rows), labels={0: "entailment", 2: "contradiction"})["triplets"]) == 1
    names = ClassLabel(names=["entailment", "neutral", "contradiction"])
    features = Features({"premise": Value("string"), "hypothesis": Value("string"), "label": names})
    assert len(nli_to_triplets(nli(*rows, features=features))["triplets"]) == 1


@pytest.mark.parametrize("bad", [None, "", "  "])
def test_text_must_be_text(bad):
    with pytest.raises(ValueError, match=r"column 'hypothesis', row 1: expected non-empty text"):
        nli_to_triplets(nli(("p", "e", E), ("p", bad, C)))


def test_missing_columns_and_unusable_rows():
    rows = Dataset.from_dict({"van_ban": ["p"], "hypothesis": ["e"], "label": [E]})
    with pytest.raises(ValueError, match=r"missing column for premise: none of .*'van_ban'.*columns="):
        nli_to_triplets(rows)
    assert len(nli_to_triplets(rows, columns={"premise": "van_ban"})["pairs"]) == 1
    with pytest.raises(ValueError, match="missing column 'không có'"):
        nli_to_triplets(rows, columns={"premise": "không có"})
    with pytest.raises(ValueError, match="no role"):
        nli_to_triplets(rows, columns={"tiền đề": "van_ban"})
    for columns in (["van_ban", "hypothesis", "label"], "van_ban"):
        with pytest.raises(ValueError, match="columns must map roles to columns"):
            nli_to_triplets(rows, columns=columns)
    with pytest.raises(ValueError, match="missing column 0 for premise"):
        nli_to_triplets(rows, columns={"premise": 0})
    with pytest.raises(ValueError, match=r"several columns may be label: \['label', 'Label'\]; name one with columns="):
        nli_to_triplets(rows.add_column("Label", [C]), columns={"premise": "van_ban"})
    with pytest.raises(ValueError, match=r"(?s)no usable pair.*contradiction"):
        nli_to_triplets(nli(("p", "c", C)))
    for setting in ("neutral", "missing_negative", "conflict"):
        with pytest.raises(ValueError, match=setting):
            nli_to_triplets(nli(("p", "e", E)), **{setting: "typo"})


def test_fact_checking_columns():
    rows = Dataset.from_dict(
        {"Statement": ["đúng", "sai", "chưa rõ"], "Evidence": ["chứng cứ"] * 3, "labels": [0, 1, 2]}
    )
    names = {0: "supported", 1: "refuted", 2: "nei"}
    made = fact_check_to_triplets(rows, labels=names, neutral="hard_negative")
    expected = {"anchor": "chứng cứ", "positive": "đúng", "negative_1": "sai", "negative_2": "chưa rõ"}
    assert made["2_negatives"].to_list() == [expected]


def test_report_prints_as_a_table():
    lines = str(nli_to_triplets(sample_nli()).report).splitlines()
    assert lines[0].split() == ["rows", "read", "3,660"]
    assert len({len(line) for line in lines}) == 1


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


@pytest.mark.parametrize("missing", [None, "", "sia"])
def test_beside_verdicts_the_value_that_is_none_is_named(missing):
    with pytest.raises(ValueError, match=f"column 'label', row 2: unknown label .*got {missing!r}$"):
        labels(["Đúng", "Sai", missing])


@pytest.mark.parametrize("key", [1, "1", 1.0, " 1 "])
@pytest.mark.parametrize("value", [1, "1", 1.0, "1.0", " 1", Decimal("1.00")])
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

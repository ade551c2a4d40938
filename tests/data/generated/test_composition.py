"""The probes: distinct, balanced, and out of reach of a bag of words or the order of mention."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from string import Formatter

import pytest

from st_vi.data.generated.composition import _GROUPS, KINDS, composition_probes


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def test_columns_counts_and_distinct_rows():
    probes = composition_probes(per_kind=50)
    assert probes.column_names == ["anchor", "positive", "negative", "kind"]
    assert Counter(probes["kind"]) == dict.fromkeys(KINDS, 50) and len(KINDS) == 7
    assert len({tuple(row.values()) for row in probes}) == len(probes) == 350
    for row in probes:
        assert len({row["anchor"], row["positive"], row["negative"]}) == 3
        for text in row.values():
            assert text == unicodedata.normalize("NFC", text) == " ".join(text.split())
        for name in ("anchor", "positive", "negative"):
            assert row[name][0].isupper() and row[name].endswith(".") and "{" not in row[name]


def test_both_sentences_have_the_same_words():
    for row in composition_probes(per_kind=100):
        assert Counter(words(row["positive"])) == Counter(words(row["negative"]))
        assert set(words(row["anchor"])) != set(words(row["positive"]))  # a paraphrase, no reordering


def test_the_order_of_mention_decides_nothing():
    """Half of the patterns of a kind name a and b as the sentence does, half the other way round."""
    for kind in KINDS:
        patterns = [pattern for of, _, group in _GROUPS if of == kind for pattern in group]
        same = [re.findall(r"{[ab]}", paraphrase) == ["{a}", "{b}"] for _, paraphrase in patterns]
        assert 2 * sum(same) == len(patterns) >= 4, kind
        for sentence, paraphrase in patterns:
            fields = [{name for _, name, *_ in Formatter().parse(text) if name} for text in (sentence, paraphrase)]
            assert fields[0] == fields[1] and {"a", "b"} <= fields[0] <= {"a", "b", "who"}
            assert re.findall(r"{[ab]}", sentence) == ["{a}", "{b}"]


def test_patterns_share_a_kind_evenly():
    probes = composition_probes(per_kind=10)
    for kind in KINDS:
        patterns = [pattern for of, _, group in _GROUPS if of == kind for pattern in group]
        counts = []
        for _, paraphrase in patterns:
            outline = re.sub(r"\\{(a|b|who)\\}", ".+", re.escape(paraphrase)) + "$"
            texts = [row["positive"] for row in probes if row["kind"] == kind]
            counts.append(sum(bool(re.match(outline, text, re.IGNORECASE)) for text in texts))
        assert max(counts) - min(counts) <= 1 and sum(counts) == 10, (kind, counts)


def test_the_seed_decides():
    assert composition_probes(20).to_list() == composition_probes(20).to_list()
    assert composition_probes(20).to_list() != composition_probes(20, seed=1).to_list()


@pytest.mark.parametrize("per_kind", [0, -1, 10_000])
def test_too_few_or_too_many(per_kind):
    with pytest.raises(ValueError, match="per_kind"):
        composition_probes(per_kind)

"""The shipped sample sets: what they say they are, spelled as Vietnamese, and without a give-away."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline

from st_vi.data import sample_nli, sample_retrieval, sample_sts

NLI, RETRIEVAL = sample_nli(), sample_retrieval()
LABELS = ("entailment", "neutral", "contradiction")

ONSET = "b|ch|c|d|đ|gh|gi|g|h|kh|k|l|m|ngh|ng|nh|n|ph|p|qu|r|s|th|tr|t|v|x|"
RHYME = (
    "[aăâeêoôơuưiy]|[aâeêiưoôơu][ciumnpt]|ă[cmnpt]|a[oyi]|ă?ng|[aăâeoôuư]ng|ơ[iu]|ây|eo|ia|ua|ưa|uê|uy|oa|oe|uơ|yu|"
    "[aiê](ch|nh)|iê(u|c|m|n|ng|p|t)|yê(u|m|n|ng|t)|oa(c|ch|i|m|n|ng|nh|o|p|t|y)|oă(c|m|n|ng|t)|oe[nto]|oo(c|ng)|"
    "uâ(n|ng|t|y)|uê(ch|nh)|uô(c|i|m|n|ng|t)|uy(a|ch|ên|êt|nh|t|u|n|p)|ươ(c|i|m|n|ng|p|t|u)|ươ|[uôơoư]i|y[nt]|ynh|uơn"
)
SYLLABLE = re.compile(f"(?:{ONSET})(?:{RHYME})")
TONES = {"\u0300", "\u0301", "\u0303", "\u0309", "\u0323"}
# Loan words and units that everyday Vietnamese writes without a hyphen or accent.
LOANS = """
app bazan bloc buffet cabin camera chip clo coli email gara gas gen gym hecta homestay internet karaoke km led
livestream metro milimét mililít mini natri online oxy robot shipper shop siro taxi tivi tour vali video virus wifi
"""


def words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text.lower())


def is_syllable(word: str) -> bool:
    parts = unicodedata.normalize("NFD", word)
    tones = [part for part in parts if part in TONES]
    letters = unicodedata.normalize("NFC", "".join(part for part in parts if part not in TONES))
    stopped = re.search("(?:c|ch|p|t)$", letters)  # A stopped syllable carries the sharp or the heavy tone.
    tone_fits = not stopped or tones in (["\u0301"], ["\u0323"])
    return len(tones) < 2 and tone_fits and SYLLABLE.fullmatch(letters) is not None


def misspelled(texts: Iterable[str]) -> set[str]:
    """Words that are no syllable, no loan word and no name."""
    found, loans = set(), set(words(LOANS))
    for text in texts:
        for match in re.finditer(r"[^\W\d_]+", text):
            word = match.group()
            if word[0].islower() and word not in loans and len(word) > 1 and not is_syllable(word):
                found.add(word)
    return found


def test_the_spelling_check_sees_a_slip():
    assert misspelled(["Nghề làm bánh được truyền từ đời quỳnh tới đời khuya."]) == set()
    assert misspelled(["Nó hocj bài ngyà mai với bạn đuợcc, thícha."]) == {"hocj", "ngyà", "đuợcc", "thícha"}


def test_nli_is_what_it_says():
    counts = Counter(NLI["label"])
    assert len(set(counts.values())) == 1 and counts["neutral"] >= 1200
    texts = [*dict.fromkeys(NLI["premise"]), *NLI["hypothesis"]]
    assert len(texts) == len(set(texts)) == 4 * counts["neutral"]
    train, test = sample_nli("train"), sample_nli("test")
    assert not set(train["premise"]) & set(test["premise"])
    assert 0.2 < len(test) / len(NLI) < 0.3 and set(test["topic"]) == set(train["topic"])
    with pytest.raises(ValueError, match="split"):
        sample_nli("dev")


def test_retrieval_is_what_it_says():
    passages = dict(zip(RETRIEVAL["passage_id"], RETRIEVAL["passage"], strict=True))
    assert len(passages) == len(set(passages.values())) >= 200
    assert len(RETRIEVAL) == len(set(RETRIEVAL["question"])) >= 600
    assert min(Counter(RETRIEVAL["passage_id"]).values()) >= 3
    assert all(60 <= len(passage.split()) <= 130 for passage in passages.values())
    assert all(question.endswith("?") for question in RETRIEVAL["question"])
    train, test = sample_retrieval("train"), sample_retrieval("test")
    assert not set(train["passage_id"]) & set(test["passage_id"])
    assert 0.2 < len(test) / len(RETRIEVAL) < 0.3


def test_sts_is_what_it_says():
    rows = sample_sts()
    assert len(rows) == 150
    assert set(rows["score"]) == {half / 2 for half in range(11)}
    assert len({*rows["sentence1"], *rows["sentence2"]}) == 300
    assert len(sample_sts("train")) + len(sample_sts("test")) == 150


@pytest.mark.slow
def test_texts_are_clean_and_spelled_as_vietnamese():
    texts = {*NLI["premise"], *NLI["hypothesis"], *RETRIEVAL["passage"], *RETRIEVAL["question"]}
    for text in texts:
        assert unicodedata.is_normalized("NFC", text) and text == " ".join(text.split())
        assert not re.search(r"[\u00ad\u200b-\u200f\ufeff]| [.,;:?!]|,[^\W\d]", text), text
    assert misspelled(texts) == set()


def shares(measure) -> dict[str, float]:
    return {label: float(np.mean([measure(row) for row in NLI if row["label"] == label])) for label in LABELS}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("measure", "band"),
    [
        (lambda row: bool({"không", "chưa", "chẳng"} & set(words(row["hypothesis"]))), 1.35),
        (lambda row: len(words(row["hypothesis"])), 1.25),
        (lambda row: _overlap(row["premise"], row["hypothesis"]), 1.5),
    ],
    ids=["negation", "length", "overlap"],
)
def test_no_label_stands_out(measure, band):
    found = shares(measure)
    assert max(found.values()) < band * min(found.values()), found


def _overlap(first: str, second: str) -> float:
    left, right = set(words(first)), set(words(second))
    return len(left & right) / len(left | right)


@pytest.mark.slow
def test_hypotheses_alone_say_little_about_the_label():
    guess = make_pipeline(
        CountVectorizer(binary=True, token_pattern=r"\w+|[^\w\s]"), LogisticRegression(C=0.1, max_iter=1000)
    )
    folds = GroupKFold(5)
    accuracy = cross_val_score(guess, NLI["hypothesis"][:], NLI["label"][:], groups=NLI["premise"][:], cv=folds).mean()
    assert accuracy < 0.5  # Chance is 0.33; hypothesis-only models reach 0.67 on SNLI.


def test_words_alone_find_some_passages_but_not_all():
    passages = list(dict.fromkeys(RETRIEVAL["passage"]))
    tfidf = TfidfVectorizer(token_pattern=r"\w+", sublinear_tf=True)
    documents = tfidf.fit_transform(passages)
    found = (tfidf.transform(RETRIEVAL["question"]) @ documents.T).toarray().argmax(axis=1)
    recall = np.mean([passages[index] == row["passage"] for index, row in zip(found, RETRIEVAL, strict=True)])
    assert 0.6 < recall < 0.9

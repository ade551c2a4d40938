"""Training rows from unlabelled documents: their texts, long and short, and questions with their paragraphs."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from datasets import Dataset

from st_vi.data.accepted import Rows, as_dataset
from st_vi.data.columns import clean_texts
from st_vi.data.negatives.negation import swap_negation
from st_vi.data.negatives.perturbations import swap_number
from st_vi.data.values import bad_value
from st_vi.inputs.kinds import is_missing
from st_vi.text.questions import clauses, question, sentences

SHARES: Mapping[str, float] = {"sentence": 0.47, "clause": 0.29, "title": 0.1, "question": 0.07, "passage": 0.07}
"""Shares of the kinds of texts that `document_texts` draws; most are short, and so cheap to learn from."""

_ITEM = re.compile(r"^\s*(?:\d+\.|[a-zđ]\))\s*", re.MULTILINE)
# The first verb of a clause, and what denies it.
_DENIED = tuple(
    (re.compile(rf"\b{verb}\b"), denied)
    for verb, denied in (
        ("là", "không phải là"),
        ("đã", "chưa"),
        ("có thể", "không thể"),
        ("được", "không được"),
        ("có", "không có"),
        ("luôn", "không bao giờ"),
        ("thường", "không bao giờ"),
    )
)
SHORTEST_ANSWER = 150
"""Characters of the shortest paragraph that `document_questions` asks for."""
_ALIKE = 25  # texts that begin with the same letters, such as those that a program wrote


def document_texts(documents: Rows, count: int, seed: int = 0, shares: Mapping[str, float] = SHARES) -> list[str]:
    """Sentences, clauses, titles, questions and passages of documents, shuffled and without repeats.

    Lists, formulas, and all but the first texts that begin alike are left out.

    Args:
        documents: Columns title and text, and where there are any section: paragraphs.
        count: How many texts; fewer where the documents do not have as many.
        seed: Another seed draws others.
        shares: The share of each kind, see `SHARES`.

    Raises:
        ValueError: A missing column, or a text or title that is none; names column and row.

    Example:
        >>> from datasets import Dataset
        >>> from st_vi.data.documents import document_texts
        >>> text = "Chợ Cây Đa họp từ năm 1932 bên bờ sông, đông nhất là phiên cuối năm. Người bán đến từ mười hai xã."
        >>> rows = Dataset.from_dict({"title": ["Chợ Cây Đa"], "text": [text]})
        >>> sorted(document_texts(rows, 20))[:2]
        ['Chợ Cây Đa', 'Chợ Cây Đa họp từ năm 1932 bên bờ sông']
    """
    random = Random(seed)
    pools: dict[str, list[str]] = {kind: [] for kind in shares}
    rows = list(_paragraphs(documents))
    random.shuffle(rows)
    fresh = _Fresh()
    for title, section, text in rows:
        found = [sentence for sentence in sentences(_ITEM.sub("", text)) if fresh(sentence)]
        texts = {
            "sentence": found,
            "clause": [c for s in found for c in clauses(s) if 20 <= len(c) <= 80 and len(c.split()) >= 4],
            "title": [f"{title}, {section}" if section else title],
            "question": [q for s in found[:1] if (q := question(s, random, title))],
            "passage": [_passage(text, random)] if len(text) >= 200 else [],
        }
        for kind, pool in pools.items():
            pool += texts[kind]
    drawn: list[str] = []
    for kind, share in shares.items():
        pool = list(dict.fromkeys(pools[kind]))
        random.shuffle(pool)
        drawn += pool[: round(count * share / sum(shares.values()))]
    random.shuffle(drawn)
    return list(dict.fromkeys(drawn))


def document_questions(documents: Rows, count: int, seed: int = 0, per_document: int = 3) -> Dataset:
    """Queries and the paragraphs that they ask for, up to three per document, one document after the other.

    By chance a query is a question of a sentence of the paragraph (`question`), its title and section, or a sentence
    or clause that is then mostly missing from the paragraph. With `ClusterBatchSampler` over the column `document`
    the paragraphs of one document meet in a batch: they are the hard negatives.

    Args:
        documents: See `document_texts`; an optional column subject groups documents, such as those of one law.
        count: How many rows, at most.
        seed: Another seed draws others.
        per_document: Rows per document, at most.

    Returns:
        Columns anchor (the query), positive (the paragraph, at most 800 characters), document and kind.

    Raises:
        ValueError: See `document_texts`.
    """
    random = Random(seed)
    documents = as_dataset(documents)
    by_document: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    paragraphs_of = _paragraphs(documents)
    names = documents["subject" if "subject" in documents.column_names else "title"]
    for name, (title, section, text) in zip(names, paragraphs_of, strict=True):
        if len(text) >= SHORTEST_ANSWER:
            by_document[str(name)].append((title, section, _beginning(text)))
    rows: list[dict[str, str]] = []
    documents_left = list(by_document.items())
    random.shuffle(documents_left)
    for name, paragraphs in documents_left:
        random.shuffle(paragraphs)
        used: set[str] = set()
        for title, section, text in paragraphs[:per_document]:
            if (made := _query(title, section, text, used, random)) is not None:
                kind, query, paragraph = made
                rows.append({"anchor": query, "positive": paragraph, "document": name, "kind": kind})
        if len(rows) >= count:
            break
    return Dataset.from_list(rows[:count])


def document_contradictions(documents: Rows, count: int, seed: int = 0) -> Dataset:
    """Triplets that need no annotator: a sentence, a clause of it, and the clause denied or with another number.

    A sentence entails its clauses, mostly, and contradicts them denied: that is noisy, and plentiful. Three quarters
    are denied ("đã" becomes "chưa", "là" "không phải là", and "không" goes), the others have a number changed.

    Args:
        documents: See `document_texts`.
        count: How many rows, at most.
        seed: Another seed draws others.

    Returns:
        Columns anchor, positive and negative.

    Raises:
        ValueError: See `document_texts`.

    Example:
        >>> from datasets import Dataset
        >>> from st_vi.data.documents import document_contradictions
        >>> text = "Chợ Cây Đa đã họp bên bờ sông này từ lâu, đông nhất là phiên cuối năm."
        >>> rows = Dataset.from_dict({"title": ["Chợ Cây Đa"], "text": [text]})
        >>> document_contradictions(rows, 1, seed=1)["negative"][:]
        ['Chợ Cây Đa chưa họp bên bờ sông này từ lâu']
    """
    random, fresh = Random(seed), _Fresh()
    rows: list[dict[str, str]] = []
    paragraphs = list(_paragraphs(documents))
    random.shuffle(paragraphs)
    for _, _, text in paragraphs:
        for sentence in sentences(_ITEM.sub("", text)):
            if len(rows) >= count:
                return Dataset.from_list(rows)
            if len(sentence) > 150 or not fresh(sentence):
                continue
            parts = [clause for clause in clauses(sentence) if 5 <= len(clause.split()) <= 14]
            said = random.choice(parts) if parts and random.random() < 0.8 else sentence
            wrong = _denied(said, random) if random.random() < 0.75 else swap_number(said, seed=len(rows))
            if wrong and wrong != said:
                rows.append({"anchor": sentence, "positive": _capital(said), "negative": _capital(wrong)})
    return Dataset.from_list(rows)


def _denied(text: str, random: Random) -> str | None:
    swapped = swap_negation(text)
    if swapped and random.random() < 0.5:
        return swapped
    if not re.search(r"\b(?:không|chưa)\b", text):
        verbs = [(pattern, denied) for pattern, denied in _DENIED if pattern.search(text)]
        if verbs:
            pattern, denied = random.choice(verbs)
            return pattern.sub(denied, text, count=1)
    return swapped


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _query(title: str, section: str, text: str, used: set[str], random: Random) -> tuple[str, str, str] | None:
    found, chance = sentences(text), random.random()
    if chance < 0.68:
        for sentence in random.sample(found, len(found)):
            if asked := question(sentence, random, title):
                return "question", asked, text
    heading = f"{title}, {section}" if section else title
    if chance < 0.84 and heading not in used:
        used.add(heading)
        forms = [heading] if not section else [heading, f"{section} {title}", f"{section} của {title}"]
        return "title", random.choice(forms), text
    if len(found) >= 3:
        place = random.randrange(len(found))
        said = max(clauses(found[place]), key=len) if random.random() < 0.5 else found[place]
        if 20 <= len(said) <= 150:
            rest = text if random.random() < 0.3 else " ".join(found[:place] + found[place + 1 :])
            return "sentence", said, rest
    return None


class _Fresh:
    """Whether a sentence is worth having: of a good length, mostly letters, and not like many before."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.beginnings: dict[str, int] = defaultdict(int)

    def __call__(self, sentence: str) -> bool:
        if not 15 <= len(sentence) <= 200 or len(sentence.split()) < 3:
            return False
        if sum(letter.isalpha() or letter == " " for letter in sentence) < 0.75 * len(sentence):
            return False
        key = re.sub(r"\d+", "0", sentence.lower())
        self.beginnings[key[:24]] += 1
        if key in self.seen or self.beginnings[key[:24]] > _ALIKE:
            return False
        self.seen.add(key)
        return True


def _paragraphs(documents: Rows) -> Sequence[tuple[str, str, str]]:
    documents = as_dataset(documents)
    for column in ("title", "text"):
        if column not in documents.column_names:
            raise ValueError(f"missing column {column!r}; the columns are {documents.column_names}")
    columns: list[Any] = [clean_texts(documents["title"], "title")]
    if "section" in documents.column_names:
        columns.append(["" if is_missing(section) else section for section in documents["section"]])
    else:
        columns.append([""] * len(documents))
    texts: list[Any] = list(documents["text"])
    for row, text in enumerate(texts):  # not normalised: a new line ends a sentence
        if not isinstance(text, str) or not text.strip():
            bad_value("text", row, text, "expected non-empty text")
    return list(zip(*columns, texts, strict=True))


def _passage(text: str, random: Random) -> str:
    """Some sentences that follow each other, about 420 characters."""
    found = sentences(text)
    start, passage = random.randrange(len(found)), ""
    for sentence in found[start:]:
        if len(passage) + len(sentence) > 420:
            break
        passage += f" {sentence}"
    return passage.strip() or text[:400]


def _beginning(text: str) -> str:
    """The first sentences, about 640 characters."""
    beginning = ""
    for sentence in sentences(text):
        if beginning and len(beginning) + len(sentence) > 640:
            break
        beginning += f" {sentence}"
    return beginning.strip()[:800]

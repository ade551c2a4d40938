"""Leaks: training rows whose texts are also in the test set, exactly or nearly."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np
from datasets import Dataset
from sklearn.feature_extraction.text import TfidfVectorizer
from tqdm.auto import tqdm

from st_vi.data.accepted import Rows, as_dataset
from st_vi.data.columns import clean_texts, find_columns
from st_vi.data.triplets import Report
from st_vi.text import comparison_key, strip_diacritics

Kind = Literal["row", "anchor", "text", "near"]
Key = TypeVar("Key")
KINDS: tuple[Kind, ...] = get_args(Kind)
OTHER_TEXTS = ("positive", "hypothesis", "claim", "sentence2")
CHUNK = 1024
"""Training texts a block, against four times as many test texts: 16 MB of cosines, twice that at the peak."""


@dataclass(frozen=True)
class Leak:
    """A training row that is also in the test set.

    Attributes:
        kind: "row": its first two texts are those of a test row; "anchor": its anchor is in the test set; "text": any
            of its texts is; "near": any of its texts nearly is. The first that applies.
        train_row: Row number, from 0.
        test_row: The first test row with that text.
        train_text: The text that leaks, in the form in which it was compared.
        test_text: The text of the test set.
        similarity: 1, or the cosine if `kind` is "near".
    """

    kind: Kind
    train_row: int
    test_row: int
    train_text: str
    test_text: str
    similarity: float


@dataclass(frozen=True)
class LeakageReport:
    """The result of `leakage_report`.

    Attributes:
        leaks: One for each leaking training row: worst kind first, then the most similar.
        repeated_train: Training rows whose texts all equal those of an earlier training row.
        repeated_test: The same of the test set.
        counts: Every count; prints as a table.
    """

    leaks: tuple[Leak, ...]
    repeated_train: tuple[int, ...]
    repeated_test: tuple[int, ...]
    counts: Report

    def drop(self, kinds: Iterable[Kind] = KINDS) -> list[int]:
        """Numbers of the training rows that leak in one of these ways; repeated rows alone are no leak."""
        kinds = {kinds} if isinstance(kinds, str) else set(kinds)  # type: ignore[arg-type]
        if unknown := sorted(kinds - set(KINDS)):
            raise ValueError(f"kinds must be among {KINDS}, got {unknown}")
        return sorted(leak.train_row for leak in self.leaks if leak.kind in kinds)


def leakage_report(
    train: Rows,
    test: Rows,
    columns: Sequence[str] | None = None,
    test_columns: Sequence[str] | None = None,
    casefold: bool = False,
    ignore_diacritics: bool = False,
    near: float | None = 0.9,
    show_progress_bar: bool = True,
) -> LeakageReport:
    """Find training rows whose texts are in the test set, in any of its columns, exactly or nearly.

    Texts are compared by `st_vi.text.comparison_key`: "Hòa" and "Hoà" are one word. Two texts are near
    if the cosine of their TF-IDF vectors is high; these count sequences of three and four letters within words,
    regardless of case and punctuation. They see neither meaning nor word order: another "không" reverses a sentence
    and leaves it near, and a translation is far. All texts are compared with all others in blocks, so that memory does
    not grow with the product of their numbers.

    Documents that both sides share on purpose, as in retrieval, are no leak: name only the columns of the questions.

    Args:
        train: Rows for training.
        test: Rows for evaluation.
        columns: Text columns of `train`, the anchor first. None takes the usual ones: anchor, premise, evidence or
            sentence1; then positive, hypothesis, claim, sentence2 and all whose names begin with "negative".
        test_columns: Text columns of `test`; None takes `columns`, or the usual ones.
        casefold: Compare regardless of case.
        ignore_diacritics: Compare regardless of diacritics, with "đ" as "d".
        near: The lowest cosine that counts as near, above 0 and at most 1; None finds equal texts only.
        show_progress_bar: Show the progress of comparing.

    Raises:
        ValueError: A missing column, `near` out of range, or text that is empty or no string; names column, row and
            value.

    Example:
        >>> from datasets import Dataset
        >>> from st_vi.data import leakage_report
        >>> train = Dataset.from_dict({"anchor": ["Trời  mưa.", "Quán phở mở cửa lúc sáu giờ sáng.", "Mèo ngủ."]})
        >>> test = Dataset.from_dict({"anchor": ["Quán phở mở cửa lúc sáu giờ sáng!", "Trời mưa."]})
        >>> report = leakage_report(train, test)
        >>> [(leak.kind, leak.train_row, leak.test_row) for leak in report.leaks]
        [('row', 0, 1), ('near', 1, 0)]
        >>> report.drop(["row", "anchor", "text"])
        [0]
    """
    train, test = as_dataset(train), as_dataset(test)
    if near is not None and not 0 < near <= 1:
        raise ValueError(f"near must lie above 0 and be at most 1, or be None, got {near}")
    fold = {"casefold": casefold, "ignore_diacritics": ignore_diacritics}
    train_rows = _rows(train, columns, **fold)
    test_rows = _rows(test, columns if test_columns is None else test_columns, **fold)

    heads, anchors = _first(row[:2] for row in test_rows), _first(row[0] for row in test_rows)
    texts = {text: number for number, row in reversed([*enumerate(test_rows)]) for text in row}
    alike: Mapping[str, tuple[float, str]] = {}
    if near is not None:
        new = {text: None for row in train_rows for text in row if text not in texts}
        alike = _nearest(list(new), list(texts), near, show_progress_bar)

    def leaks() -> Iterator[Leak]:
        for number, row in enumerate(train_rows):
            if row[:2] in heads:
                yield Leak("row", number, heads[row[:2]], " | ".join(row[:2]), " | ".join(row[:2]), 1.0)
            elif row[0] in anchors:
                yield Leak("anchor", number, anchors[row[0]], row[0], row[0], 1.0)
            elif same := next((text for text in row if text in texts), None):
                yield Leak("text", number, texts[same], same, same, 1.0)
            elif found := [(alike[text], text) for text in row if text in alike]:
                (cosine, twin), text = max(found)
                yield Leak("near", number, texts[twin], text, twin, cosine)

    found = sorted(leaks(), key=lambda leak: (KINDS.index(leak.kind), -leak.similarity, leak.train_row))
    kinds = Counter(leak.kind for leak in found)
    repeated = _repeated(train_rows), _repeated(test_rows)
    counts = Report({"training rows": len(train_rows), "test rows": len(test_rows)})
    counts |= {"repeated training rows": len(repeated[0]), "repeated test rows": len(repeated[1])}
    counts |= {f"leaks by {kind}": kinds[kind] for kind in KINDS}
    counts["test rows leaked"] = len({leak.test_row for leak in found})
    return LeakageReport(tuple(found), *repeated, counts)


def without_leakage(
    train: Rows,
    test: Rows,
    columns: Sequence[str] | None = None,
    test_columns: Sequence[str] | None = None,
    kinds: Iterable[Kind] = KINDS,
    casefold: bool = False,
    ignore_diacritics: bool = False,
    near: float | None = 0.9,
    show_progress_bar: bool = True,
) -> Dataset:
    """The training rows that do not leak: those that `leakage_report` does not name.

    Works like `leakage_report`; of the leaks, only those of these `kinds` are removed.

    Raises:
        ValueError: See `leakage_report`; or an unknown kind.

    Example:
        >>> from datasets import Dataset
        >>> from st_vi.data import without_leakage
        >>> train = Dataset.from_dict({"anchor": ["Trời mưa.", "Mèo ngủ.", "Duong ngap nuoc."]})
        >>> test = Dataset.from_dict({"anchor": ["TRỜI MƯA.", "Đường ngập nước."]})
        >>> without_leakage(train, test, casefold=True, ignore_diacritics=True)["anchor"][:]
        ['Mèo ngủ.']
    """
    train, test = as_dataset(train), as_dataset(test)
    report = leakage_report(train, test, columns, test_columns, casefold, ignore_diacritics, near, show_progress_bar)
    return train.select(sorted(set(range(len(train))) - set(report.drop(kinds))))


def _rows(
    dataset: Dataset, columns: Sequence[str] | None, casefold: bool, ignore_diacritics: bool
) -> list[tuple[str, ...]]:
    """The texts of each row in the form in which they are compared."""
    names = _usual(dataset) if columns is None else [columns] if isinstance(columns, str) else list(columns)
    missing = [name for name in names if name not in dataset.column_names]
    if missing or not names:
        what = f"missing columns {missing}" if missing else "no column is named to compare"
        raise ValueError(f"{what}; the columns are {dataset.column_names}")
    texts = [
        [comparison_key(text, casefold, normalised=True) for text in clean_texts(dataset[name], name)] for name in names
    ]
    if ignore_diacritics:
        texts = [[strip_diacritics(text) for text in column] for column in texts]
    return list(zip(*texts, strict=True))


def _usual(dataset: Dataset) -> list[str]:
    others = [n for n in dataset.column_names if n.lower() in OTHER_TEXTS or n.startswith("negative")]
    return [find_columns(dataset.column_names, ["anchor"])["anchor"], *others]


def _first(values: Iterable[Key]) -> dict[Key, int]:
    """The first place of each value."""
    return {value: number for number, value in reversed([*enumerate(values)])}


def _repeated(rows: Sequence[tuple[str, ...]]) -> tuple[int, ...]:
    first = _first(rows)
    return tuple(number for number, row in enumerate(rows) if first[row] != number)


def _letters(text: str) -> str:
    return re.sub(r"[\W_]+", " ", text.casefold())


def _nearest(texts: list[str], corpus: list[str], near: float, progress: bool) -> Mapping[str, tuple[float, str]]:
    """For each text with a near one in the corpus: the cosine, and the nearest."""
    if not (texts and corpus and any(_letters(text).strip() for text in [*texts, *corpus])):
        return {}
    vectorizer = TfidfVectorizer(preprocessor=_letters, analyzer="char_wb", ngram_range=(3, 4), dtype=np.float32)
    vectorizer.fit([*texts, *corpus])
    rows, columns = vectorizer.transform(texts), vectorizer.transform(corpus)
    blocks = [columns[first : first + 4 * CHUNK].T.tocsr() for first in range(0, len(corpus), 4 * CHUNK)]
    found = {}
    for first in tqdm(range(0, len(texts), CHUNK), desc="Near duplicates", disable=not progress):
        chunk = rows[first : first + CHUNK]
        best, place = np.full(chunk.shape[0], -1, np.float32), np.zeros(chunk.shape[0], int)
        for number, block in enumerate(blocks):
            cosines = (chunk @ block).toarray()
            nearest = cosines.argmax(axis=1)
            highest = cosines[np.arange(len(nearest)), nearest]
            place = np.where(highest > best, nearest + 4 * CHUNK * number, place)
            best = np.maximum(highest, best)
        for i in np.flatnonzero(best >= near):
            found[texts[first + i]] = (min(float(best[i]), 1.0), corpus[place[i]])
    return found

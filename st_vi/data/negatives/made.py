"""Hard negatives for rows of anchors and positives: made from the positive, or found in its document.

To mine them from a corpus, use the stock `sentence_transformers.util.mine_hard_negatives`: with
``relative_margin=0.05`` it keeps what LG-ANNA (arXiv 2506.07438) keeps, it never takes a positive of the same anchor,
and its columns are what these functions read. `drop_false_negatives` has the same rule for negatives from elsewhere.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any, Literal, get_args

from datasets import Dataset

from st_vi.checks import check_choice, check_whole
from st_vi.data.accepted import Rows, TrainRows, as_dataset, as_datasets
from st_vi.data.columns import candidate_columns, clean_texts
from st_vi.data.negatives.negation import swap_negation
from st_vi.data.negatives.perturbations import Order, Unit, change_order, swap_number
from st_vi.data.triplets import MissingNegative, Report, Row, Triplets, check_triplets, checked_rows, is_made
from st_vi.data.values import bad_value
from st_vi.inputs.kinds import is_missing
from st_vi.text import comparison_key, strip_diacritics

Kind = Literal["order", "negation", "number", "diacritics"]


def perturbed_negatives(
    dataset: TrainRows,
    kinds: Sequence[Kind] = ("order", "negation", "number"),
    per_row: int = 1,
    order: Order = "swap",
    unit: Unit = "syllable",
    missing_negative: MissingNegative = "pair",
    seed: int = 0,
) -> Triplets:
    """Negatives made by one small change of the positive: another word order, negation or number.

    Each row tries the kinds in its own random order and takes the first that apply, each kind once. A change that gives
    the anchor, another positive of the anchor or an existing negative does not count.

    The rules do not understand the text; their functions say what each of them misses. "diacritics" is not a default,
    because a text without marks is the same message, typed fast: as a negative, it pushes queries without marks away
    from their answers.

    Source: NegCLIP, arXiv 2210.01936, for the order of words; the other kinds are *inferred*.

    Args:
        dataset: Rows, or sets of rows, with anchor and positive. Existing negatives stay, before the new ones, and so
            does `weight`; other columns are left out.
        kinds: Some of "order" (`change_order`), "negation" (`swap_negation`), "number" (`swap_number`) and
            "diacritics" (`strip_diacritics`).
        per_row: The number of new negatives per row, at most; not more than there are kinds.
        order: The order for the kind "order", see `change_order`.
        unit: "syllable" or "word", see `change_order`.
        missing_negative: A row without any negative: keep it as a "pair", or "skip" it.
        seed: Seed of all draws. The negatives of a row depend on its texts, the positives of its anchor and the seed,
            not on other rows.

    Returns:
        `Triplets`, whose report counts the negatives of each kind.

    Raises:
        ValueError: Unknown or no kinds, `per_row` out of range, rows that `check_triplets` refuses, or no usable row.

    Example:
        >>> from datasets import Dataset
        >>> from st_vi.data import perturbed_negatives
        >>> rows = Dataset.from_dict({"anchor": ["Tàu đến chưa?"], "positive": ["Tàu chưa vào ga."]})
        >>> perturbed_negatives(rows, kinds=["negation"])["triplets"]["negative"][:]
        ['Tàu vào ga.']
    """
    kinds = [kinds] if isinstance(kinds, str) else kinds  # type: ignore[list-item]
    if not kinds or len(set(kinds)) < len(kinds) or not set(kinds) <= set(get_args(Kind)):
        raise ValueError(f"kinds must be some of {get_args(Kind)}, each once, got {tuple(kinds)}")
    if not 1 <= per_row <= len(kinds):
        raise ValueError(f"per_row must lie between 1 and the number of kinds, {len(kinds)}, got {per_row}")
    rules: dict[str, Callable[[str], str | None]] = {
        "order": partial(change_order, order=order, unit=unit, seed=seed),
        "negation": swap_negation,
        "number": partial(swap_number, seed=seed),
        "diacritics": strip_diacritics,
    }
    rows = rows_of(dataset)
    known, made, new_rows = _texts_by_anchor(rows), Counter[str](), []
    for row in rows:
        negatives: dict[str, str] = {}
        for kind in Random(f"{seed} {row.anchor} {row.positive}").sample(list(kinds), len(kinds)):
            text = rules[kind](row.positive)
            taken = known[comparison_key(row.anchor)] | _keys([*row.negatives, *negatives])
            if text and len(negatives) < per_row and comparison_key(text) not in taken:
                negatives[text] = kind
        made.update(negatives.values())
        new_rows.append(replace(row, negatives=(*row.negatives, *negatives)))
    report = {"rows read": len(rows)} | {f"negatives by {kind}": made[kind] for kind in kinds}
    return as_triplets(new_rows, report, missing_negative)


def same_document_negatives(
    dataset: Rows,
    document: str = "document",
    per_row: int = 1,
    missing_negative: MissingNegative = "pair",
    seed: int = 0,
) -> Triplets:
    """Negatives from the same document: positives of its other anchors, on the subject but no answer.

    Never the anchor itself, one of its positives, or the same text twice (`st_vi.text.comparison_key`). Overlapping
    passages, and others that answer the question, are not noticed; use `drop_false_negatives` for those.

    Source: RankGen, arXiv 2205.09726, which takes negatives from the same book.

    Args:
        dataset: Rows with anchor, positive and the column that names the document. Existing negatives stay, and so
            does `weight`; other columns are left out.
        document: The column.
        per_row: The number of new negatives per row, at most, drawn at random.
        missing_negative: A row without any negative: keep it as a "pair", or "skip" it.
        seed: Seed of the draw.

    Returns:
        `Triplets`, whose report counts documents and negatives.

    Raises:
        ValueError: No such column, a row without a document, `per_row` below 1, rows that `check_triplets` refuses, or
            no usable row.

    Example:
        >>> from datasets import Dataset
        >>> from st_vi.data import same_document_negatives
        >>> rows = same_document_negatives(Dataset.from_dict({
        ...     "anchor": ["Chợ họp lúc nào?", "Chợ bán gì?"],
        ...     "positive": ["Chợ họp từ ba giờ sáng.", "Ghe nào cũng đầy trái cây."],
        ...     "document": ["chợ nổi", "chợ nổi"],
        ... }))
        >>> rows["triplets"][0]["negative"]
        'Ghe nào cũng đầy trái cây.'
    """
    dataset = as_dataset(dataset)
    if document not in dataset.column_names:
        raise ValueError(f"missing column {document!r} of documents; the columns are {dataset.column_names}")
    check_whole("per_row", per_row)
    check_choice("missing_negative", missing_negative, MissingNegative)
    rows, documents = rows_of(dataset), dataset[document][:]
    for number, name in enumerate(documents):
        if is_missing(name):  # rows without a document are not of one
            bad_value(document, number, name, "expected the name of a document")
    known, passages = _texts_by_anchor(rows), defaultdict[Any, dict[str, str]](dict)
    for row, name in zip(rows, documents, strict=True):
        passages[name].setdefault(comparison_key(row.positive), row.positive)
    new_rows, added = [], 0
    for row, name in zip(rows, documents, strict=True):
        taken = known[comparison_key(row.anchor)] | _keys(row.negatives)
        others = [text for key, text in passages[name].items() if key not in taken]
        drawn = Random(f"{seed} {row.anchor} {row.positive}").sample(others, min(per_row, len(others)))
        added += len(drawn)
        new_rows.append(replace(row, negatives=(*row.negatives, *drawn)))
    report = {"rows read": len(rows), "documents": len(passages), "negatives added": added}
    return as_triplets(new_rows, report, missing_negative)


def rows_of(dataset: TrainRows) -> list[Row]:
    """Checked rows of one or more datasets, with normalised texts and weights; other columns are not read.

    Raises:
        ValueError: Rows that `check_triplets` refuses, or a weight that is no number.

    Example:
        >>> from datasets import Dataset
        >>> from st_vi.data.negatives.made import rows_of
        >>> rows_of(Dataset.from_dict({"anchor": ["Mưa"], "positive": ["Trời  mưa"], "negative": ["Nắng"]}))
        [Row(anchor='Mưa', positive='Trời mưa', negatives=('Nắng',), weight=1.0)]
    """
    dataset = as_datasets(dataset)
    checked: Any = check_triplets(dataset).values() if isinstance(dataset, Mapping) else [checked_rows(dataset)]
    return [row for rows in checked for row in _rows(rows)]


def _rows(rows: Dataset) -> list[Row]:
    names = ["anchor", *candidate_columns(rows.column_names)]
    texts = zip(*(rows[name] if is_made(rows) else clean_texts(rows[name], name) for name in names), strict=True)
    weights = rows["label"][:] if "label" in rows.column_names else [1.0] * len(rows)
    return [
        Row(anchor, positive, tuple(negatives), weight)
        for (anchor, positive, *negatives), weight in zip(texts, weights, strict=True)
    ]


def as_triplets(rows: Iterable[Row], report: Mapping[str, int], missing_negative: MissingNegative) -> Triplets:
    """Rows as datasets; rows without a negative stay as pairs, or are skipped.

    Raises:
        ValueError: An unknown `missing_negative`, or no row.
    """
    check_choice("missing_negative", missing_negative, MissingNegative)
    rows = list(rows)
    kept = rows if missing_negative == "pair" else [row for row in rows if row.negatives]
    skipped = {"rows without a negative, skipped": len(rows) - len(kept)} if missing_negative == "skip" else {}
    return Triplets.from_rows(kept, Report(report | skipped))  # type: ignore[operator]


def _texts_by_anchor(rows: Iterable[Row]) -> dict[str, set[str]]:
    """Texts that are no negatives of an anchor: itself and its positives, as comparison keys."""
    known = defaultdict[str, set[str]](set)
    for row in rows:
        known[comparison_key(row.anchor)] |= _keys([row.anchor, row.positive])
    return known


def _keys(texts: Iterable[str]) -> set[str]:
    return set(map(comparison_key, texts))

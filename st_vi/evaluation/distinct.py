"""Vectors of whole columns, every distinct input encoded once."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence
from typing import Any, Literal

import numpy as np
from sentence_transformers import SentenceTransformer
from tqdm.auto import tqdm

from st_vi.checks import check_model
from st_vi.inputs.content import content_key, opened

logger = logging.getLogger(__name__)
_ROUNDING = 1e-6

Method = Literal["encode", "encode_query", "encode_document"]


def encode_distinct(
    model: SentenceTransformer,
    *columns: Sequence[Any],
    batch_size: int,
    show_progress_bar: bool,
    keys: Sequence[Sequence[Hashable]] | None = None,
    method: Method = "encode",
    **settings: Any,
) -> list[np.ndarray]:
    """Encode every distinct input of the columns once; float32 arrays (len(column), D), one per column.

    All texts go to the model in one call. Images are looked up and decoded when their batch comes. `keys` has the
    `content_key` of every input, where they are known already; further settings are those of the method that encodes.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from st_vi.evaluation.distinct import encode_distinct
        >>> model = SentenceTransformer(modules=[BoW(vocab=["mưa", "nắng"])], device="cpu")
        >>> first, second = encode_distinct(model, ["mưa", "nắng"], ["mưa"], batch_size=2, show_progress_bar=False)
        >>> first.shape, bool((first[0] == second[0]).all())
        ((2, 2), True)
    """
    settings |= {"batch_size": batch_size, "show_progress_bar": show_progress_bar, "keys": keys, "method": method}
    vectors, places = distinct_vectors(model, *columns, **settings)
    return [vectors[of_column] for of_column in places]


def distinct_vectors(
    model: SentenceTransformer,
    *columns: Sequence[Any],
    batch_size: int,
    show_progress_bar: bool,
    keys: Sequence[Sequence[Hashable]] | None = None,
    method: Method = "encode",
    **settings: Any,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The vectors (distinct inputs, D) behind `encode_distinct`, and the row of each input of each column in them.

    Warns if they are all the same, or hold NaN.
    """
    if isinstance(model, str) or not hasattr(model, method):  # anything else that encodes will do
        check_model(model)
    keys = keys or [[content_key(value) for value in column] for column in columns]
    first: dict[Hashable, tuple[int, int]] = {}
    for number, column_keys in enumerate(keys):
        for row, key in enumerate(column_keys):
            first.setdefault(key, (number, row))
    texts = [key for key in first if isinstance(key, str)]
    others = [key for key in first if not isinstance(key, str)]

    def encode(wanted: Sequence[Hashable], bar: bool) -> np.ndarray:
        inputs = [columns[number][row] for number, row in (first[key] for key in wanted)]
        if not isinstance(wanted[0], str) and model.supports("image"):  # to others, a path is a text
            inputs = [*map(opened, inputs)]
        options = {"batch_size": batch_size, "show_progress_bar": bar, "convert_to_numpy": True, **settings}
        return getattr(model, method)(inputs, **options).astype(np.float32)

    parts = [encode(texts, show_progress_bar)] if texts else []
    bar = tqdm(range(0, len(others), batch_size), "Batches", disable=not (show_progress_bar and others), leave=False)
    parts += [encode(others[start : start + batch_size], False) for start in bar]
    place = {key: row for row, key in enumerate([*texts, *others])}
    places = [np.array([place[key] for key in column_keys], dtype=int) for column_keys in keys]
    vectors = np.concatenate(parts) if parts else model.encode([])
    if len(vectors) > 1 and not np.ptp(vectors, axis=0).max() > _ROUNDING * np.abs(vectors).max():  # False for NaN
        logger.warning(
            f"the model gives {len(vectors)} different inputs the same vector, or NaN, and no figure says anything: "
            "training has diverged, for example at too high a learning rate"
        )
    return vectors, places

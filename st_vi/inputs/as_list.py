"""Inputs of ``encode`` as a list, from any of the usual containers, without torch."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


def as_list(inputs: Any) -> tuple[list[Any], bool]:
    """The inputs as a list, and whether it was a single input without a container.

    A single input is what stock ``encode`` treats as one: a text, a dict, an image, an array of numbers, a
    conversation. Several inputs are a list, tuple, dataset column, array of texts, pandas Series, Arrow array,
    generator, ….

    Raises:
        ValueError: A table or a dict of columns (name the column), a set (it has no order), or nothing that can be
            encoded.

    Example:
        >>> from st_vi.inputs.as_list import as_list
        >>> as_list("Trời mưa"), as_list(text for text in ("Trời mưa", "Trời nắng"))
        ((['Trời mưa'], True), (['Trời mưa', 'Trời nắng'], False))
    """
    kind = type(inputs).__name__
    columns = getattr(inputs, "column_names", None)
    if columns is None and hasattr(inputs, "columns") and not isinstance(inputs, Mapping):
        columns = inputs.columns  # pandas, polars
    if columns is None and isinstance(inputs, Mapping) and any(map(_is_column, inputs, inputs.values())):
        columns = inputs
    if columns is not None:
        names = [str(name) for name in columns]
        example = f", such as [{names[0]!r}]" if names else ""
        raise ValueError(f"this is a {kind} with the columns {names}: pass one of its columns{example}")
    if inputs is None or isinstance(inputs, (bool, int, float, np.number)):
        raise ValueError(f"nothing to encode in {inputs!r}")
    if isinstance(inputs, (set, frozenset)):
        raise ValueError(f"a {kind} has no order to give vectors in: pass a list")
    if isinstance(inputs, np.ndarray) and (inputs.dtype.kind in "UOT" or inputs.shape == (0,)):
        if inputs.ndim > 1:
            raise ValueError(f"expected texts in one dimension, got an array of the shape {inputs.shape}")
        return (inputs.tolist(), False) if inputs.ndim else ([inputs.item()], True)
    if _is_one(inputs):
        return [inputs], True
    for method in ("to_pylist", "tolist", "to_list"):  # Arrow; pandas; polars
        if hasattr(inputs, method):
            return list(getattr(inputs, method)()), False
    if isinstance(inputs, Iterable):
        return list(inputs), False
    raise ValueError(f"expected texts, images or both, one or a list of them, got a {kind}")


def _is_column(key: Any, value: Any) -> bool:
    """Whether a value of a dict is no part of one input, of which images, frames and the content may be several."""
    several = key in ("image", "video", "audio", "array", "content")
    return not several and isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping))


def _is_one(inputs: Any) -> bool:
    if isinstance(inputs, (list, tuple)):  # a conversation is a list, too
        first = inputs[0] if isinstance(inputs, list) and inputs else None
        return isinstance(first, Mapping) and "role" in first and "content" in first
    numbers = isinstance(inputs, np.ndarray) or type(inputs).__module__.partition(".")[0] == "torch"
    picture = hasattr(inputs, "getbands") or numbers
    return picture or isinstance(inputs, (str, bytes, bytearray, memoryview, io.IOBase, Mapping, os.PathLike))

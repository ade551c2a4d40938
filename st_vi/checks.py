"""Checks of arguments whose own errors would come late or not name them."""

from __future__ import annotations

import math
import os
from numbers import Integral
from typing import Any, get_args


def check_choice(name: str, value: Any, choices: Any) -> None:
    """Check an argument that is one of the values of a `Literal`.

    Raises:
        ValueError: It is none of them.

    Example:
        >>> from typing import Literal
        >>> from st_vi.checks import check_choice
        >>> check_choice("unit", "letter", Literal["syllable", "word"])
        Traceback (most recent call last):
        ValueError: unit must be one of ('syllable', 'word'), got 'letter'
    """
    if value not in get_args(choices):
        raise ValueError(f"{name} must be one of {get_args(choices)}, got {value!r}")


def check_whole(name: str, value: Any, least: int = 1, most: int | None = None) -> None:
    """Check an argument that counts something.

    Raises:
        ValueError: It is no integer, such as 2.0, or out of range.

    Example:
        >>> from st_vi.checks import check_whole
        >>> check_whole("num_heads", 1.5)
        Traceback (most recent call last):
        ValueError: num_heads must be a whole number of at least 1, got 1.5
    """
    if not isinstance(value, Integral) or not least <= int(value) <= (math.inf if most is None else most):
        span = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} must be a whole number {span}, got {value!r}")


def check_model(model: Any) -> None:
    """Check that it is a model, and not the name of one, or what it should encode where arguments are swapped.

    Raises:
        ValueError: It is none.

    Example:
        >>> from st_vi.checks import check_model
        >>> check_model("outputs/viclsr")
        Traceback (most recent call last):
        ValueError: model must be a SentenceTransformer, such as st_vi.load('outputs/viclsr'), got str
    """
    from sentence_transformers import SentenceTransformer  # most of this module's users need no torch

    if not isinstance(model, SentenceTransformer):
        loaded = f"st_vi.load({str(model)!r})" if isinstance(model, (str, os.PathLike)) else "st_vi.load gives"
        raise ValueError(f"model must be a SentenceTransformer, such as {loaded}, got {type(model).__name__}")

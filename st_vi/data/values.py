"""The values of rows, read in one way by adapters, checks, collators and evaluators; errors say exactly where."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from math import inf, nan
from typing import Any, NoReturn

import torch

from st_vi.inputs.kinds import is_missing, open_stored, stock_input, stored_images
from st_vi.inputs.videos import StoredVideo
from st_vi.text import is_unicode, mend

PICTURE_TOKENS = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>")
"""Tokens that stand for an image in Qwen2-VL; in a text without an image, they stop the batch."""
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


def shown(value: Any) -> str:
    """A value in a message: its `repr`, cut off after 200 characters."""
    text = repr(value).replace("\n", " ")
    return text if len(text) < 200 else text[:200] + "…"


def bad_value(column: str, row: int | str, value: Any, problem: str) -> NoReturn:
    """Raise the ValueError that names column, row and value."""
    if problem.startswith("expected") and isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d+,\d+\s*", value):
        problem += ", with a point for the decimals"
    raise ValueError(f"column {column!r}, row {row}: {problem}, got {shown(value)}")


def number_of(value: Any) -> Any:
    """The number in a text, as files without types store it, or in a decimal; any other value unchanged.

    Example:
        >>> [number_of(value) for value in ("0.5", " 4 ", 3, "4,5", "")]
        [0.5, 4.0, 3, '4,5', '']
    """
    is_number = isinstance(value, Decimal) or (isinstance(value, str) and _NUMBER.fullmatch(value.strip()))
    return float(value) if is_number else value


def text_of(row: Mapping[str, Any], column: str) -> str:
    """The text of a column after `st_vi.text.mend`; "" if there is none.

    Raises:
        ValueError: It is no text, no Unicode, or has one of `PICTURE_TOKENS` in it.
    """
    text = row.get(column)
    if is_missing(text):
        return ""
    if not isinstance(text, str) or not is_unicode(text):
        raise ValueError(f"expected text in {column!r}, got {shown(text)}")
    for token in PICTURE_TOKENS:
        if token in text:
            raise ValueError(f"{token} stands for an image: take it out of the text, got {shown(text)}")
    return mend(text)


def score_of(row: Mapping[str, Any], at: int | str) -> float:
    """The score of a row, NaN where there is none.

    Raises:
        ValueError: It is not between 0 and 1.
    """
    score = _number(row.get("score"), "score", at)
    if score < 0 or score > 1:
        bad_value("score", at, row["score"], "expected a score between 0 and 1")
    return score


def class_of(row: Mapping[str, Any], at: int | str) -> float:
    """The class of a row, NaN where there is none.

    Raises:
        ValueError: It is no whole number from 0 on.
    """
    value = _number(row.get("class"), "class", at)
    if value < 0 or value == inf or value % 1 > 0:
        bad_value("class", at, row["class"], "expected a whole number from 0 on")
    return value


def teacher_scores_of(row: Mapping[str, Any], candidates: Sequence[str], at: int | str) -> list[float] | None:
    """A teacher's scores, one for each candidate; NaN for one that is missing, None where all are.

    Raises:
        ValueError: They are not one number per candidate.
    """
    scores = row.get("teacher_scores")
    if is_missing(scores):
        return None
    try:
        count = 0 if isinstance(scores, str) else len(scores)  # type: ignore[arg-type]
    except TypeError:  # a number, or a tensor without dimensions
        count = 0
    if count != len(candidates):
        raise ValueError(
            f"row {at}: teacher_scores needs one number for each of {list(candidates)}, got {shown(scores)}"
        )
    return [_number(score, "teacher_scores", at) for score in scores]  # type: ignore[union-attr]


def scores_of(row: Mapping[str, Any], candidates: Sequence[str], at: int | str) -> list[float]:
    """The score of a row, then a teacher's of each candidate, NaN where there is none.

    Raises:
        ValueError: As for `score_of` and `teacher_scores_of`.
    """
    return [score_of(row, at), *(teacher_scores_of(row, candidates, at) or [nan] * len(candidates))]


def teacher_vector_of(
    row: Mapping[str, Any], column: str, at: int | str, size: int | None = None
) -> torch.Tensor | None:
    """A teacher's vector of the text in a column, (T,) fp32, or None.

    Args:
        row: A row of the dataset.
        column: The column of the text; its vector is in "{column}_teacher".
        at: The row number, for the message.
        size: T, if it is known from other rows.

    Raises:
        ValueError: It is no list of finite numbers, or not of that size.
    """
    value = row.get(f"{column}_teacher")
    if is_missing(value):
        return None
    try:
        vector = torch.as_tensor(value, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        vector = torch.empty(0, 0)
    good = vector.ndim == 1 and len(vector) and vector.isfinite().all()
    if not good or size not in (None, len(vector)):
        bad_value(f"{column}_teacher", at, value, f"expected {size or 'a list of'} finite numbers")
    return vector


def _number(value: Any, column: str, at: int | str) -> float:
    """A number, also as text; NaN for one that is missing. What fp32 would make infinite is an error."""
    try:
        if isinstance(value, bool) or (isinstance(value, str) and "_" in value):  # of which Python makes numbers
            raise ValueError
        result = nan if is_missing(value) else float(value)
    except (TypeError, ValueError, OverflowError):
        bad_value(column, at, value, "expected a number")
    if torch.finfo(torch.float32).max < abs(result) < inf:
        bad_value(column, at, value, "expected a smaller number")
    return result


def model_input(row: Mapping[str, Any], column: str, prefix: str = "") -> Any:
    """Text, images and video of a column as one stock input: a string, an image, or a dict of what there is.

    Raises:
        ValueError: There is neither text nor image nor video, the text is not one that can be trained on (`text_of`),
            or an image or video cannot be read.
        ImportError: A video file needs a decoder, and none is installed.
    """
    text, stored = unopened_input(row, column, prefix)
    return stock_input(text, [open_stored(one) for one in stored])


def unopened_input(row: Mapping[str, Any], column: str, prefix: str = "") -> tuple[str, list[Any]]:
    """Text, "" for none, and images of a column as they are stored, its video as `StoredVideo`.

    Raises:
        ValueError: As for `model_input`, but for images and videos that cannot be read.
    """
    text, stored = text_of(row, column), stored_in(row, column)
    if not stored and not text:
        raise ValueError(f"a row has neither text nor image nor video in {column!r}")
    return f"{prefix} {text}".strip(), stored


def images_of(row: Mapping[str, Any], column: str) -> list[Any]:
    """The images that belong to a column, opened, and its video as a list of frames.

    Raises:
        BadImageError: One cannot be read. Its `column` is where it is stored.
        ImportError: A video file needs a decoder, and none is installed.
    """
    opened = []
    for one in stored_in(row, column):
        try:
            opened.append(open_stored(one))
        except ValueError as error:
            kind = "video" if isinstance(one, StoredVideo) else "image"
            raise BadImageError(str(error), f"{column}_{kind}") from error
    return opened


def stored_in(row: Mapping[str, Any], column: str) -> list[Any]:
    """The images that belong to a column as they are stored, and its video as `StoredVideo`, unless it has no frames.

    Example:
        >>> from st_vi.data.values import stored_in
        >>> stored_in({"anchor_image": ["a.png", ""], "anchor_video": []}, "anchor")
        ['a.png']
    """
    video: Any = row.get(f"{column}_video")
    is_frames = isinstance(video, (list, tuple)) or hasattr(video, "ndim")
    has_video = len(video) if is_frames else stored_images(video)
    return [*stored_images(row.get(f"{column}_image")), *([StoredVideo(video)] if has_video else [])]


class BadImageError(ValueError):
    """An image or a video that cannot be used.

    Attributes:
        column: Where it is stored.
    """

    def __init__(self, message: str, column: str) -> None:
        super().__init__(message)
        self.column = column

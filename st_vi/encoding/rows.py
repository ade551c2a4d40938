"""Model inputs from the rows of a corpus."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from st_vi.files.lines import file_at
from st_vi.inputs.kinds import is_missing, is_null, is_picture, shown
from st_vi.inputs.pictures import IN_TEXT, bytes_in_text, undecoded
from st_vi.text import is_blank, is_unicode

_PICTURE = re.compile(
    r".*\.(?:apng|avif|bmp|dib|gif|hei[cf]|ico|jfif|jp2|jpe|jpe?g|p[bgnp]m|png|tga|tiff?|webp)\s*", re.IGNORECASE
)

# Placeholders of images and videos in the text of a Qwen2-VL, and their delimiters.
_RESERVED = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")


class BadValue(ValueError):
    """A field of a row has an invalid value."""

    def __init__(self, column: str, problem: str) -> None:
        super().__init__(f"column {column!r}: {problem}")
        self.column, self.problem = column, problem


class NoRow(dict[str, Any]):
    """An item of a corpus that is not a row."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


@dataclass(frozen=True)
class InputColumns:
    """The columns of the input, and how to interpret them.

    Attributes:
        text: Column of texts, or of any inputs of the model; None if there are only images.
        image: Column of images, if it was named.
        pictures: Whether all strings in the column `text` are image paths.
        text_only: Whether all strings in the column `text` are text, even if they look like image paths.
        folder: Folder that image paths are relative to.
    """

    text: str | None
    image: str | None = None
    pictures: bool = False
    text_only: bool = False
    folder: Path | None = None

    @classmethod
    def of(
        cls,
        rows: Sequence[Mapping[str, Any]],
        column: str | None,
        image_column: str | None,
        text_only: bool,
        folder: Path | None,
    ) -> InputColumns:
        """Infer the settings from the first rows of a corpus.

        A column has images if it was named as such, if it is called "image" or "…_image", or if most of its strings
        look like image paths. One that is called "video" or "…_video" is rejected.
        """
        if image_column is not None:
            if column is None and any("text" in row for row in rows):
                column = "text"
            return cls(column, image_column, text_only=True, folder=folder)
        column = column or "text"
        if column == "video" or column.endswith("_video"):
            raise ValueError(
                f"column {column!r} holds videos, which are not encoded from a corpus: use encode_by_tokens or encode"
            )
        pictures = not text_only and (column == "image" or column.endswith("_image") or _mostly_pictures(rows, column))
        return cls(column, None, pictures, text_only, folder)

    @property
    def names(self) -> list[str]:
        """The columns to read."""
        return [name for name in (self.text, self.image) if name is not None]

    def check_model(self, modalities: Iterable[Any]) -> None:
        """Reject image columns for a text-only model, which would encode their paths."""
        if (self.image or self.pictures) and not any("image" in kind for kind in modalities):
            raise ValueError(
                f"column {self.image or self.text!r} holds images, and this model takes none. If these are texts "
                "that look like image file names, use text_only (--text-only)"
            )

    def input(self, row: Mapping[str, Any], modalities: Sequence[Any]) -> Any:
        """The input of a row; images stay paths or bytes until their batch is encoded. Raises `BadValue`."""
        if isinstance(row, NoRow):
            raise BadValue(self.names[0], f"expected a dict of columns, got {shown(row.value)}")
        plain = not any("image" in kind for kind in modalities)  # for text-only models every string is text
        if self.image is None:
            assert self.text is not None
            return self._any(row.get(self.text), self.text, plain)
        pictures = self._pictures(row.get(self.image), self.image)
        text = row.get(self.text) if self.text else None
        if not (text is None or isinstance(text, str)):
            raise BadValue(str(self.text), f"expected a text, got {shown(text)}")
        if text and not is_blank(text):
            _check_text(text, str(self.text), plain)
            return {"text": text} | ({} if pictures is None else {"image": pictures})
        if pictures is None:
            raise BadValue(self.image, f"nothing to encode in {shown(row.get(self.image))}")
        return {"image": pictures}

    def _any(self, value: Any, column: str, plain: bool) -> Any:
        if isinstance(value, str):
            if is_blank(value):
                raise BadValue(column, f"nothing to encode in {value!r:.100}")
            if not plain and not self.text_only and (self.pictures or self._names_picture(value)):
                return {"image": self._pictures(value, column)}
            _check_text(value, column, plain)
            return value if plain else {"text": value}  # so that it is never opened as a path or URL
        if _is_nothing(value):
            raise BadValue(column, f"nothing to encode in {shown(value)}")
        if _is_picture(value) or (self.pictures and isinstance(value, (list, tuple))):
            if plain:
                raise BadValue(column, f"this is an image, and the model takes none: {shown(value)}")
            return {"image": self._pictures(value, column)}
        if isinstance(value, (list, tuple)) and isinstance(value[0], str):  # two would be encoded as a pair
            raise BadValue(column, f"expected a text, got several: {shown(value)}")
        if isinstance(value, Mapping) and "video" in value:
            raise BadValue(column, "videos are not encoded from a corpus: use encode_by_tokens or encode")
        if isinstance(value, Mapping) and value.keys() <= {"text", "image"}:
            return InputColumns("text", "image", text_only=True, folder=self.folder)._both(value, column, plain)
        return value

    def _names_picture(self, value: str) -> bool:
        """Whether a string among texts is an image path, and not a sentence that ends like one."""
        sentence = re.search(r"\s", value.strip()) and not re.search(r"[/\\]", value)
        return looks_like_picture(value) and (not sentence or file_at(self._path(value)) is not None)

    def _path(self, value: str | Path) -> Path:
        return Path(self.folder or ".", os.path.expanduser(value))

    def _both(self, value: Mapping[str, Any], column: str, plain: bool) -> Any:
        try:
            found = self.input(value, ["text", "image"])
        except BadValue as error:
            raise BadValue(column, error.problem) from error
        if plain and "image" in found:
            raise BadValue(column, f"this has an image, and the model takes none: {shown(value)}")
        return found["text"] if plain else found

    def _pictures(self, value: Any, column: str) -> Any:
        """One image, a list of images, or None."""
        value = undecoded(value)
        if is_missing(value):
            return None
        if isinstance(value, (list, tuple)):
            several = [found for one in value if (found := self._pictures(one, column)) is not None]
            return several or None
        if isinstance(value, str):
            try:
                if (data := bytes_in_text(value)) is not None:
                    return data
            except ValueError as error:
                raise BadValue(column, f"this is no base64: {shown(value)}") from error
        if isinstance(value, str) and re.match(r"[A-Za-z][\w+.-]+://", value):
            raise BadValue(column, f"no such image: {value!r:.200}; only files are read here: download it")
        if isinstance(value, (str, Path)):
            path = self._path(value)
            if (file := file_at(path)) is None:
                hint = "" if self.image else "; if these are texts, say text_only (--text-only)"
                raise BadValue(column, f"no such image: {str(path)!r:.200}{hint}")
            return file
        if not _is_picture(value):
            raise BadValue(column, f"expected an image, got {shown(value)}")
        if isinstance(value, io.IOBase):  # its content tells whether it is the same when a run is resumed
            value.seek(0)
            return value.read()
        return bytes(value) if isinstance(value, memoryview) else value


def looks_like_picture(text: str) -> bool:
    """Whether a string looks like the path or URL of an image."""
    if IN_TEXT.match(text.lstrip()):
        return True
    name = text.partition("?")[0] if text.startswith(("http://", "https://")) else text
    return bool(_PICTURE.fullmatch(name))  # "." does not match a line break


def _mostly_pictures(rows: Sequence[Mapping[str, Any]], column: str) -> bool:
    strings = [value for row in rows if isinstance(value := row.get(column), str) and not is_blank(value)]
    return 2 * sum(map(looks_like_picture, strings)) > len(strings)


def _check_text(text: str, column: str, plain: bool) -> None:
    if not is_unicode(text):
        raise BadValue(column, f"this is no Unicode text, it has half of a surrogate pair: {text!r:.100}")
    for token in () if plain else _RESERVED:
        if token in text:
            raise BadValue(column, f"the text has {token}, which stands for an image: {text!r:.100}")


def _is_nothing(value: Any) -> bool:
    if isinstance(value, (list, tuple, Mapping)):
        return not value
    return is_null(value) or isinstance(value, (bool, int, float, np.number))


def _is_picture(value: Any) -> bool:
    is_grey = isinstance(value, np.ndarray) or getattr(value, "ndim", 0) == 2
    return not isinstance(value, str) and (is_grey or is_picture(value))

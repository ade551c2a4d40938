"""From the rows of a corpus to what a model takes: which columns hold texts and which pictures, and what is wrong."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from st_vi.text import is_blank, is_unicode

_PICTURE = re.compile(
    r".*\.(?:apng|avif|bmp|dib|gif|hei[cf]|ico|jfif|jp2|jpe|jpe?g|p[bgnp]m|png|tga|tiff?|webp)\s*", re.IGNORECASE
)

# What stands for a picture or a video in the text of a Qwen2-VL, as does what is around it.
_RESERVED = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")


class BadValue(ValueError):
    """What is wrong with one field of a row."""

    def __init__(self, column: str, problem: str) -> None:
        super().__init__(f"column {column!r}: {problem}")
        self.column, self.problem = column, problem


class NoRow(dict[str, Any]):
    """What stands in a corpus in the place of a row, and has no columns."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


@dataclass(frozen=True)
class InputColumns:
    """Where in a row the input is, and how to read it.

    Attributes:
        text: The column of texts, or of anything that the model takes; None where there are pictures only.
        image: The column of pictures, if it was named.
        pictures: Whether strings in the column `text` are names of pictures, all of them.
        text_only: Whether all strings in the column `text` are texts, even if they look like the name of a picture.
        folder: What names of pictures are relative to.
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
        """Decide by the first rows of a corpus.

        A column is one of pictures if it is named so, if its name is "image" or ends in "_image", or if more of its
        strings look like names of pictures than do not.
        """
        if image_column is not None:
            if column is None and any("text" in row for row in rows):
                column = "text"
            return cls(column, image_column, text_only=True, folder=folder)
        column = column or "text"
        pictures = not text_only and (column == "image" or column.endswith("_image") or _mostly_pictures(rows, column))
        return cls(column, None, pictures, text_only, folder)

    @property
    def names(self) -> list[str]:
        """The columns to read."""
        return [name for name in (self.text, self.image) if name is not None]

    def check_model(self, modalities: Iterable[Any]) -> None:
        """Refuse pictures for a model that takes none: it would read their names.

        Raises:
            ValueError: The model takes texts only.
        """
        if (self.image or self.pictures) and not any("image" in kind for kind in modalities):
            raise ValueError(
                f"column {self.image or self.text!r} holds pictures, and this model takes none. If it holds texts that "
                "look like names of pictures, say text_only (--text-only)"
            )

    def input(self, row: Mapping[str, Any], modalities: Sequence[Any]) -> Any:
        """What to encode of a row; a picture stays a path or bytes until its batch comes.

        Raises:
            BadValue: There is nothing to encode, or something that no model takes.
        """
        if isinstance(row, NoRow):
            raise BadValue(self.names[0], f"expected a dict of columns, got {row.value!r:.100}")
        plain = not any("image" in kind for kind in modalities)  # for such models every string is a text
        if self.image is None:
            assert self.text is not None
            return self._any(row.get(self.text), self.text, plain)
        pictures = self._pictures(row.get(self.image), self.image)
        text = row.get(self.text) if self.text else None
        if not (text is None or isinstance(text, str)):
            raise BadValue(str(self.text), f"expected a text, got {text!r:.100}")
        if text and not is_blank(text):
            _check_text(text, str(self.text), plain)
            return {"text": text} | ({"image": pictures} if pictures else {})
        if not pictures:
            raise BadValue(self.image, f"nothing to encode in {row.get(self.image)!r:.100}")
        return {"image": pictures}

    def _any(self, value: Any, column: str, plain: bool) -> Any:
        if isinstance(value, str):
            if is_blank(value):
                raise BadValue(column, f"nothing to encode in {value!r:.100}")
            if not plain and not self.text_only and (self.pictures or self._names_picture(value)):
                return {"image": self._pictures(value, column)}
            _check_text(value, column, plain)
            return value if plain else {"text": value}  # nobody shall take it for the name of a file or an address
        if _is_nothing(value):
            raise BadValue(column, f"nothing to encode in {value!r:.100}")
        if _is_picture(value) or (self.pictures and isinstance(value, (list, tuple))):
            if plain:
                raise BadValue(column, f"this is a picture, and the model takes none: {value!r:.100}")
            return {"image": self._pictures(value, column)}
        if isinstance(value, Mapping) and value.keys() <= {"text", "image"}:
            return InputColumns("text", "image", text_only=True, folder=self.folder)._both(value, column, plain)
        return value

    def _names_picture(self, value: str) -> bool:
        """Whether a string among texts is a picture's name: a sentence may end like one."""
        sentence = re.search(r"\s", value.strip()) and not re.search(r"[/\\]", value)
        return looks_like_picture(value) and (not sentence or _is_file(Path(self.folder or ".", value)))

    def _both(self, value: Mapping[str, Any], column: str, plain: bool) -> Any:
        try:
            found = self.input(value, ["text", "image"])
        except BadValue as error:
            raise BadValue(column, error.problem) from error
        if plain and "image" in found:
            raise BadValue(column, f"this has a picture, and the model takes none: {value!r:.100}")
        return found["text"] if plain else found

    def _pictures(self, value: Any, column: str) -> Any:
        """One picture, a list of several, or None."""
        if value is None or (isinstance(value, str) and is_blank(value)):
            return None
        if isinstance(value, (list, tuple)):
            several = [found for one in value if (found := self._pictures(one, column)) is not None]
            return several or None
        if isinstance(value, Mapping) and value.keys() & {"bytes", "path"}:  # an undecoded column of data sets
            value = value.get("bytes") or value.get("path")
        if isinstance(value, (str, Path)):
            path = Path(self.folder or ".", value)
            if not _is_file(path):
                hint = "" if self.image else "; if these are texts, say text_only (--text-only)"
                raise BadValue(column, f"no such picture: {str(path)!r:.200}{hint}")
            return path
        if not _is_picture(value):
            raise BadValue(column, f"expected a picture, got {value!r:.100}")
        return value


def looks_like_picture(text: str) -> bool:
    """Whether a string could be the name of a file with a picture, or one on the web.

    Example:
        >>> from st_vi.encoding.rows import looks_like_picture
        >>> looks_like_picture("ảnh/phở bò.JPG"), looks_like_picture("Một tô phở.")
        (True, False)
    """
    if text.startswith("data:image/"):
        return True
    name = text.partition("?")[0] if text.startswith(("http://", "https://")) else text
    return bool(_PICTURE.fullmatch(name))  # a dot stands for no line end


def _mostly_pictures(rows: Sequence[Mapping[str, Any]], column: str) -> bool:
    strings = [value for row in rows if isinstance(value := row.get(column), str) and not is_blank(value)]
    return 2 * sum(map(looks_like_picture, strings)) > len(strings)


def _check_text(text: str, column: str, plain: bool) -> None:
    if not is_unicode(text):
        raise BadValue(column, f"this is no Unicode text, it has half of a surrogate pair: {text!r:.100}")
    for token in () if plain else _RESERVED:
        if token in text:
            raise BadValue(column, f"the text has {token}, which stands for a picture: {text!r:.100}")


def _is_nothing(value: Any) -> bool:
    if isinstance(value, float) and math.isnan(value):
        return True
    if isinstance(value, (list, tuple, Mapping)):
        return not value
    return value is None or isinstance(value, (bool, int, float, np.number))


def _is_picture(value: Any) -> bool:
    undecoded = isinstance(value, Mapping) and bool(value) and value.keys() <= {"bytes", "path"}
    return undecoded or isinstance(value, (bytes, bytearray, Path, np.ndarray)) or hasattr(value, "getbands")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long for a name, or with a null character
        return False

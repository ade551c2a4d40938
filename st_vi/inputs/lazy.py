"""Inputs whose images and videos are opened when they are embedded, not when the batch is made."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, TypeVar

from st_vi.inputs.content import Size
from st_vi.inputs.kinds import open_stored, stock_input
from st_vi.inputs.pictures import image_size, undecoded
from st_vi.inputs.videos import StoredVideo, video_size

T = TypeVar("T")


def stored_size(stored: Any) -> Size:
    """(width, height) of an image, (width, height, frames) of a `StoredVideo`, without decoding it where that is known.

    Raises:
        ValueError: As for `image_size` and `video_size`.
    """
    return video_size(stored.value) if isinstance(stored, StoredVideo) else image_size(stored)


@dataclass(frozen=True, eq=False)
class LazyInputs:
    """The inputs of a column with images and videos as they are stored: paths, bytes, or anything else that is opened.

    In the features of a batch it stands in place of the tensors of its column. Only `CachedDLELoss` knows how to embed
    it; any use as a tensor is an error that says so.

    Args:
        column: Name of the column, for messages.
        texts: Text of each row, "" for none.
        images: Stored images of each row, and videos as `StoredVideo`.

    Example:
        >>> from PIL import Image
        >>> from st_vi.inputs.lazy import LazyInputs
        >>> red = Image.new("RGB", (2, 2), "red")
        >>> inputs = LazyInputs("anchor", ["Màu gì?", "Màu đỏ."], [[red], []])
        >>> inputs.opened(1, {})
        'Màu đỏ.'
        >>> inputs.opened(0, {})["text"]
        'Màu gì?'
    """

    column: str
    texts: list[str]
    images: list[list[Any]]

    def __len__(self) -> int:
        return len(self.texts)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{self._as_tensor()} ({name!r} was asked for)")

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Raise an error: no function of torch takes them."""
        raise TypeError(next(value for value in args if isinstance(value, cls))._as_tensor())

    def _as_tensor(self) -> str:
        return (
            f"the images of column {self.__dict__.get('column')!r} are not opened yet: only CachedDLELoss can embed "
            "batches of MixedTaskCollator(lazy_images=True)"
        )

    def key(self, row: int) -> tuple[Hashable, ...]:
        """Equal for inputs of the same text, and images and videos with the same paths or bytes."""
        return (self.texts[row], *map(image_key, self.images[row]))

    def image_sizes(self, row: int, known: dict[Hashable, Size]) -> list[Size]:
        """`stored_size` of the images and videos of a row; `known` and errors as for `opened`."""
        return [self._of_image(row, stored, known, stored_size) for stored in self.images[row]]

    def opened(self, row: int, known: dict[Hashable, Any]) -> Any:
        """The stock input of a row. Images in `known` are not opened again; those that are opened are added to it.

        Raises:
            ValueError: An image or video cannot be read. Names row and column.
        """
        images = [self._of_image(row, stored, known, open_stored) for stored in self.images[row]]
        return stock_input(self.texts[row], images)

    def _of_image(self, row: int, stored: Any, known: dict[Hashable, T], read: Callable[[Any], T]) -> T:
        key = image_key(stored)
        if key not in known:
            try:
                known[key] = read(stored)
            except (ImportError, ValueError) as error:
                raise self.error(row, error) from error
        return known[key]

    def error(self, row: int, error: Exception) -> ValueError:
        """The error of a row, as `MixedTaskCollator` names it."""
        return ValueError(f"row {row} of the batch, column {self.column!r}: {error}")


def image_key(stored: Any) -> Hashable:
    """Equal for the same path and for equal bytes; an object in memory equals itself. Of a video by frames, for all.

    Example:
        >>> from st_vi.inputs.lazy import image_key
        >>> image_key({"bytes": b"GIF8", "path": "a.gif"}) == image_key(b"GIF8")
        True
    """
    if isinstance(stored, StoredVideo):
        frames = stored.value
        return ("video", *map(image_key, frames if isinstance(frames, (list, tuple)) else [frames]))
    stored = undecoded(stored)
    if isinstance(stored, (bytes, bytearray, memoryview)):
        return ("bytes", blake2b(stored, digest_size=16).digest())
    if isinstance(stored, (str, os.PathLike)):
        return ("path", os.fspath(stored))
    return ("object", id(stored))

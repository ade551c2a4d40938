"""Pictures of a folder, found by what a text says of them."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from st_vi.encoding.identity import model_identity
from st_vi.inputs.pictures import open_image

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"})


@dataclass(frozen=True)
class FoundPicture:
    """A picture that was found.

    Attributes:
        file: Its path below the folder.
        score: Cosine with the query.
    """

    file: str
    score: float


class PictureIndex:
    """The vectors of all pictures in a folder and below.

    Args:
        folder: Searched for files that end like pictures.
        model: Encodes pictures and texts; a viPolyQwen.
        kept_in: A folder for the vectors, so that a later call encodes only files that are new or changed; None keeps
            nothing.
        batch_size: Pictures that are open at a time.
        progress: Told of every batch: how many are done, and how many there are.

    Raises:
        ValueError: There is no such folder, or no picture in it that can be read.

    Warns:
        UserWarning: A picture cannot be read and is left out; names it.

    Example:
        >>> from st_vi import load
        >>> from st_vi.encoding.search import PictureIndex
        >>> index = PictureIndex("pictures", load("outputs/poly-mini/model"))  # doctest: +SKIP
        >>> index.search("một con mèo đen", top=3)  # doctest: +SKIP
    """

    def __init__(
        self,
        folder: str | Path,
        model: SentenceTransformer,
        *,
        kept_in: str | Path | None = None,
        batch_size: int = 16,
        progress: Callable[[int, int], None] = lambda *_: None,
    ) -> None:
        self.folder, self.model = Path(folder), model
        if not self.folder.is_dir():
            raise ValueError(f"{folder} is no folder")
        found = sorted(p for p in self.folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        vectors = self._kept(kept_in)
        new = [file for file in found if self._key(file) not in vectors]
        for start in range(0, len(new), batch_size):
            part = self._read(new[start : start + batch_size])
            if part:
                made: Any = model.encode(list(part.values()), batch_size=batch_size, normalize_embeddings=True)
                vectors.update(zip((self._key(file) for file in part), made.astype(np.float32), strict=True))
            progress(min(len(new), start + batch_size), len(new))
        readable = [file for file in found if self._key(file) in vectors]
        if not readable:
            raise ValueError(f"there is no picture in {folder} that can be read ({', '.join(sorted(SUFFIXES))})")
        self.files = [file.relative_to(self.folder).as_posix() for file in readable]
        self.vectors = np.stack([vectors[self._key(file)] for file in readable])
        if kept_in is not None and new:
            self._keep(Path(kept_in), [self._key(file) for file in readable])

    def search(self, query: str, top: int = 5, prompt_name: str | None = None) -> list[FoundPicture]:
        """The pictures that fit best.

        Args:
            query: A text.
            top: How many, at least 1.
            prompt_name: A prompt of the model for the query.

        Raises:
            ValueError: The query is blank, or `top` below 1.
        """
        if not query.strip():
            raise ValueError("the query is empty")
        if top < 1:
            raise ValueError(f"top must be at least 1, got {top}")
        vector: Any = self.model.encode({"text": query}, prompt_name=prompt_name, normalize_embeddings=True)  # type: ignore[call-overload]
        scores = self.vectors @ vector.astype(np.float32)
        return [FoundPicture(self.files[number], float(scores[number])) for number in np.argsort(-scores)[:top]]

    def _read(self, files: list[Path]) -> dict[Path, Any]:
        pictures = {}
        for file in files:
            try:
                pictures[file] = open_image(file)
            except ValueError as error:
                warnings.warn(f"{file} is left out: {error}", stacklevel=3)
        return pictures

    def _key(self, file: Path) -> str:
        state = file.stat()
        return hashlib.sha256(
            f"{file.relative_to(self.folder)} {state.st_size} {state.st_mtime_ns}".encode()
        ).hexdigest()

    def _kept(self, folder: str | Path | None) -> dict[str, np.ndarray]:
        if folder is None:
            return {}
        self.identity = model_identity(self.model)
        file = Path(folder) / "pictures.npz"
        if not file.is_file():
            return {}
        with np.load(file, allow_pickle=False) as kept:
            if str(kept["model"]) != self.identity:
                return {}
            return dict(zip(kept["keys"].tolist(), kept["vectors"], strict=True))

    def _keep(self, folder: Path, keys: list[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / "pictures.unfinished.npz"
        np.savez(unfinished, model=np.array(self.identity), keys=np.array(keys), vectors=self.vectors)
        os.replace(unfinished, folder / "pictures.npz")

"""Images of a folder, found by what a text says of them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer
from tqdm.auto import tqdm

from st_vi.checks import check_whole
from st_vi.encoding.search.passages import files_below
from st_vi.encoding.search.vectors import KEY_BYTES, VectorStore
from st_vi.files.lines import on_disk
from st_vi.inputs.kinds import picture_suffixes
from st_vi.inputs.pictures import open_image
from st_vi.text import is_blank
from st_vi.text.normal import without_capitals


@dataclass(frozen=True)
class FoundPicture:
    """An image that was found.

    Attributes:
        file: Its path below the folder.
        score: Cosine with the query.
    """

    file: str
    score: float


class PictureIndex:
    """The vectors of all images in a folder and below.

    Args:
        folder: Searched for all files with the extension of an image, also in folders that are linked there; names that
            begin with a dot are skipped.
        model: Encodes images and texts; a viPolyQwen.
        kept_in: A folder for the vectors (`VectorStore`), so that a later call encodes only images that are new;
            None keeps nothing.
        batch_size: Images that are open at a time.
        show_progress_bar: Whether to show a bar while images are encoded.

    Raises:
        ValueError: There is no such folder, or no image in it that can be read.

    Warns:
        UserWarning: An image cannot be read and is left out; names it.

    Example:
        >>> from st_vi import load
        >>> from st_vi.encoding.search import PictureIndex
        >>> index = PictureIndex("pictures", load("poly-mini"))  # doctest: +SKIP
        >>> index.search("một con mèo đen", top=3)  # doctest: +SKIP
    """

    def __init__(
        self,
        folder: str | Path,
        model: SentenceTransformer,
        *,
        kept_in: str | Path | None = None,
        batch_size: int = 16,
        show_progress_bar: bool = False,
    ) -> None:
        self.folder, self.model = on_disk(folder), model
        if not self.folder.is_dir():
            raise ValueError(f"{folder} is no folder")
        suffixes = picture_suffixes()
        files = [file for file in files_below(self.folder) if file.suffix.lower() in suffixes]
        if not files:
            raise ValueError(f"there is no image in {folder}")
        if not model.supports("image"):
            raise ValueError("the model encodes no images: take one that does, such as poly-mini")
        store = VectorStore(kept_in, model) if kept_in is not None else None
        known = store.read() if store else {}
        left_out: list[str] = []
        problems: dict[bytes, str] = {}  # by content, which several files may have
        keys = _contents(files, left_out)
        new = list({key: file for file, key in keys.items() if key not in known}.values())
        with tqdm(total=len(new), desc="Pictures", disable=not (show_progress_bar and new)) as progress:
            for start in range(0, len(new), batch_size):
                part = _opened({file: keys[file] for file in new[start : start + batch_size]}, problems)
                if part:
                    vectors: Any = model.encode(list(part.values()), batch_size=batch_size, normalize_embeddings=True)
                    found = dict(zip((keys[file] for file in part), vectors.astype(np.float16), strict=True))
                    known |= found
                    if store:
                        store.write(found)
                progress.update(min(batch_size, len(new) - start))
        left_out += [f"{file} is left out: {problems[key]}" for file, key in keys.items() if key not in known]
        for problem in left_out:  # at the end, not in the middle of the bar
            warnings.warn(problem, stacklevel=2)
        readable = [file for file, key in keys.items() if key in known]
        if not readable:
            raise ValueError(f"there is no image in {folder} that can be read")
        if store:
            store.forget_others(known, [keys[file] for file in readable])
        self.files = [file.relative_to(self.folder).as_posix() for file in readable]
        self.vectors = np.stack([known[keys[file]] for file in readable]).astype(np.float32)

    def search(self, query: str, top: int = 10, prompt_name: str | None = None) -> list[FoundPicture]:
        """The images that fit best.

        Args:
            query: A text.
            top: How many, at least 1.
            prompt_name: A prompt of the model for the query.

        Raises:
            ValueError: The query is blank, or `top` below 1.
        """
        if is_blank(query):
            raise ValueError("the query is empty")
        check_whole("top", top)
        text: Any = {"text": without_capitals(query)}
        vector = self.model.encode(text, prompt_name=prompt_name, normalize_embeddings=True)
        scores = self.vectors @ vector.astype(np.float32)
        return [FoundPicture(self.files[number], float(scores[number])) for number in np.argsort(-scores)[:top]]


def _contents(files: list[Path], left_out: list[str]) -> dict[Path, bytes]:
    keys = {}
    for file in files:
        try:
            keys[file] = _content(file)
        except OSError as error:
            left_out.append(f"{file} is left out: {error}")
    return keys


def _content(file: Path) -> bytes:
    return sha256(file.read_bytes()).digest()[:KEY_BYTES]


def _opened(files: dict[Path, bytes], problems: dict[bytes, str]) -> dict[Path, Any]:
    """The images of files by their content; what cannot be read is added to `problems`."""
    pictures = {}
    for file, key in files.items():
        try:
            picture = open_image(file)
            if _content(file) != key:  # the vector of one image would be kept as that of the other
                raise ValueError(f"{file} was changed in the meantime: search again")
            pictures[file] = picture
        except (OSError, ValueError) as error:
            problems[key] = str(error)
    return pictures

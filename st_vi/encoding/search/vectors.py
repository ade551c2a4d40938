"""An on-disk cache of vectors of passages and images, keyed by content."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import numpy as np
from sentence_transformers import SentenceTransformer
from tqdm.auto import tqdm

from st_vi.encoding.batches import encode_by_tokens
from st_vi.files.lines import on_disk
from st_vi.identity import model_identity
from st_vi.inputs.prompts import prompt_of

KEY_BYTES = 16
"""Length of a key: the beginning of a SHA-256 of the content."""
_AT_ONCE = 2048  # texts encoded between two writes
_OLD = 3600  # seconds after which nobody writes a file any more


class VectorStore:
    """A folder of unit vectors keyed by content, so that nothing is encoded twice.

    Each file ``part-….npz`` has some keys and vectors (float16), and appears only when complete. Vectors of what is
    deleted are removed once they outnumber the others. Threads and processes may share a folder.

    Args:
        folder: Cache folder, created if needed; may be shared by several models.
        model: The encoder.

    Raises:
        OSError: The folder cannot be written.
    """

    def __init__(self, folder: str | Path, model: SentenceTransformer) -> None:
        self.model = model
        # Texts are encoded with the default prompt of the model, which is no part of its identity.
        identity = json.dumps(model_identity(model)) + (prompt_of(model) or "")
        self.folder = on_disk(folder) / hashlib.sha256(identity.encode()).hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)

    def vectors(self, texts: Sequence[str], show_progress_bar: bool = False) -> np.ndarray:
        """Vectors (N, D) of texts in float32; new texts are encoded and cached."""
        keys = [hashlib.sha256(text.encode(errors="surrogatepass")).digest()[:KEY_BYTES] for text in texts]
        known = self.read()
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        with tqdm(total=len(new), desc="Passages", disable=not (show_progress_bar and new)) as progress:
            pending = list(new)
            for start in range(0, len(pending), _AT_ONCE):
                part = pending[start : start + _AT_ONCE]
                vectors = unit(encode_by_tokens(self.model, [new[key] for key in part])).astype(np.float16)
                found = dict(zip(part, vectors, strict=True))
                self.write(found)
                known |= found
                progress.update(len(part))
        self.forget_others(known, keys)
        return np.stack([known[key] for key in keys]).astype(np.float32)

    def read(self) -> dict[bytes, np.ndarray]:
        """Every vector by its key."""
        known: dict[bytes, np.ndarray] = {}
        for file in self._files():
            try:
                with np.load(file) as part:
                    known |= dict(zip(map(bytes, part["keys"]), part["vectors"], strict=True))
            except FileNotFoundError:  # another process has just tidied up
                continue
            except PermissionError:
                raise
            except Exception as error:  # a damaged file can raise any kind
                raise ValueError(f"{file} is damaged: delete it, and its vectors are computed again") from error
        return known

    def write(self, vectors: Mapping[bytes, np.ndarray]) -> None:
        """Add vectors (D,) by key."""
        file = self.folder / f"part-{uuid4().hex}.npz"  # other threads and processes may write others
        unfinished = file.with_suffix(".tmp")
        try:
            with unfinished.open("wb") as output:
                keys = np.frombuffer(b"".join(vectors), np.uint8).reshape(-1, KEY_BYTES)
                np.savez(output, keys=keys, vectors=np.stack(list(vectors.values())).astype(np.float16))
            os.replace(unfinished, file)
        except OSError as error:
            todo = f"{error.strerror or error}. Vectors are kept here: make room, or use another folder (--index)"
            raise OSError(error.errno, todo, str(self.folder)) from error
        finally:
            unfinished.unlink(missing_ok=True)  # of a full disk

    def forget_others(self, known: Mapping[bytes, np.ndarray], keys: Collection[bytes]) -> None:
        """Remove all vectors but those of `keys`, once the others outnumber them, and what killed processes left."""
        if len(known) > 2 * len(set(keys)):
            old = self._files()
            self.write({key: known[key] for key in keys})
            for file in old:
                with suppress(OSError):  # removed by another, or, on Windows, read by one
                    file.unlink()
        for file in self.folder.glob("part-*.tmp"):  # of a process that was killed
            with suppress(OSError):  # removed by another
                if file.stat().st_mtime < time.time() - _OLD:
                    file.unlink()

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("part-*.npz"))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (N, D) of length 1 in float32; zeros stay zeros."""
    return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)).astype(np.float32)

"""An on-disk cache of passage vectors, keyed by content."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer
from tqdm.auto import tqdm

from st_vi.encoding.batches import encode_by_tokens
from st_vi.encoding.identity import model_identity

_AT_ONCE = 2048  # texts encoded between two writes


class VectorStore:
    """A folder of unit vectors keyed by content, so that no text is encoded twice.

    Each file ``part-00000.npz`` has keys and vectors (float16) of some texts, and appears only when complete. Vectors
    of deleted texts are removed once they outnumber the others.

    Args:
        folder: Cache folder, created if needed; may be shared by several models.
        model: The encoder.

    Raises:
        OSError: The folder cannot be written.
    """

    def __init__(self, folder: str | Path, model: SentenceTransformer) -> None:
        self.model = model
        identity = json.dumps(model_identity(model), sort_keys=True, default=str)
        self.folder = Path(folder) / hashlib.sha256(identity.encode()).hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)

    def vectors(self, texts: Sequence[str], show_progress_bar: bool = False) -> np.ndarray:
        """Vectors (N, D) of texts in float32; new texts are encoded and cached."""
        keys = [hashlib.sha256(text.encode(errors="surrogatepass")).digest()[:16] for text in texts]
        known = self._read()
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        with tqdm(total=len(new), desc="Passages", disable=not (show_progress_bar and new)) as progress:
            pending = list(new)
            for start in range(0, len(pending), _AT_ONCE):
                part = pending[start : start + _AT_ONCE]
                found = _unit(encode_by_tokens(self.model, [new[key] for key in part]))
                self._write(part, found)
                known |= dict(zip(part, found.astype(np.float16), strict=True))
                progress.update(len(part))
        if len(known) > 2 * len(set(keys)):
            self._rewrite({key: known[key] for key in keys})
        return np.stack([known[key] for key in keys]).astype(np.float32)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("part-*.npz"))

    def _read(self) -> dict[bytes, np.ndarray]:
        known: dict[bytes, np.ndarray] = {}
        for file in self._files():
            with np.load(file) as part:
                known |= dict(zip(map(bytes, part["keys"]), part["vectors"], strict=True))
        return known

    def _write(self, keys: Sequence[bytes], vectors: np.ndarray) -> None:
        taken = [int(file.stem.removeprefix("part-")) for file in self._files()]
        file = self.folder / f"part-{max(taken, default=-1) + 1:05d}.npz"
        unfinished = file.with_suffix(f".{os.getpid()}.tmp")
        with unfinished.open("wb") as output:
            np.savez(output, keys=np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16), vectors=vectors.astype("f2"))
        os.replace(unfinished, file)

    def _rewrite(self, known: dict[bytes, np.ndarray]) -> None:
        old = self._files()
        self._write(list(known), np.stack(list(known.values())))
        for file in old:
            file.unlink()


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

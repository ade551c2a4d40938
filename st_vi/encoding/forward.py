"""The forward pass of ``model.encode`` on features that are there already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import batch_to_device, truncate_embeddings
from torch import Tensor
from torch.nn import functional

_TOKENS = ("input_ids", "attention_mask", "token_type_ids")
_SAME = ("modality", "prompt_length")  # for all texts of a call


@torch.inference_mode()
def vectors_of(model: SentenceTransformer, features: dict[str, Any], normalize: bool = False) -> np.ndarray:
    """Vectors (B, D) of a batch of features, as ``model.encode`` gives them.

    Call ``model.encode`` once before, so that stock places the model.
    """
    if model.training or any(module.training for module in model):
        model.eval()  # it was trained in the meantime; stock does it every time
    vectors: Tensor = model(batch_to_device(features, model.device))["sentence_embedding"]
    if model.truncate_dim is not None:
        vectors = truncate_embeddings(vectors, model.truncate_dim)
    if normalize:
        vectors = to_length_1(vectors)
    vectors = vectors.cpu()
    return (vectors.float() if vectors.dtype == torch.bfloat16 else vectors).numpy()


def to_length_1(vectors: Tensor) -> Tensor:
    """The vectors (B, D) with length 1, in float32: in bfloat16, lengths would be 0.997 to 1.003.

    Example:
        >>> import torch
        >>> from st_vi.encoding.forward import to_length_1
        >>> to_length_1(torch.tensor([[3, 4]], dtype=torch.bfloat16))
        tensor([[0.6000, 0.8000]])
    """
    return functional.normalize(vectors.float(), p=2, dim=1)


class KeptTokens:
    """Tokens of texts that were preprocessed to be counted, so that they are not tokenized again in their batches.

    Only what can be padded anew is kept: token ids, padded on the right, and nothing else that differs between texts.
    """

    def __init__(self, model: SentenceTransformer) -> None:
        self._padding = getattr(getattr(model[0], "tokenizer", None), "pad_token_id", None)
        self._rows: dict[int, dict[str, np.ndarray]] = {}
        self._same: dict[str, Any] = {}

    def add(self, numbers: Sequence[int], features: Mapping[str, Any]) -> None:
        """Keep the features of a batch of texts by their numbers, if that is possible."""
        if self._padding is None or not {*_TOKENS[:2]} <= features.keys() <= {*_TOKENS, *_SAME}:
            return
        mask = features["attention_mask"]
        lengths = mask.sum(dim=1)
        if not torch.equal(mask, (torch.arange(mask.shape[1]) < lengths[:, None]).to(mask.dtype)):
            return
        self._same = {name: features[name] for name in _SAME if name in features}
        names = [name for name in _TOKENS if name in features and name != "attention_mask"]
        columns = {name: features[name].to(torch.int32).numpy() for name in names}
        for row, (number, length) in enumerate(zip(numbers, lengths.tolist(), strict=True)):
            self._rows[number] = {name: values[row, :length].copy() for name, values in columns.items()}

    def features(self, numbers: Sequence[int]) -> dict[str, Any] | None:
        """A padded batch; None if one of the texts was not kept."""
        rows = [self._rows.get(number) for number in numbers]
        if not all(rows):
            return None
        found: dict[str, Any] = dict(self._same)
        lengths = np.array([len(row["input_ids"]) for row in rows if row])
        mask = np.arange(lengths.max()) < lengths[:, None]
        for name in rows[0] or ():
            padded = np.full(mask.shape, self._padding if name == "input_ids" else 0, dtype=np.int64)
            padded[mask] = np.concatenate([row[name] for row in rows if row])
            found[name] = torch.from_numpy(padded)
        return found | {"attention_mask": torch.from_numpy(mask.astype(np.int64))}

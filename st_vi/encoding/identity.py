"""Short names for models and inputs, the same in every process: what was encoded, and by which model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Module, Transformer
from sentence_transformers.util import fullname

# These change when a model is saved and loaded again, or with where it lies, and no embedding with them.
_NO_MATTER = {"architectures", "dtype", "torch_dtype", "transformers_version"}


def model_identity(model: SentenceTransformer) -> str:
    """A hash over weights, configurations and tokenizers; the same for a copy of the model in another folder.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from st_vi.encoding.identity import model_identity
        >>> first, same, other = (SentenceTransformer(modules=[BoW([word])]) for word in ("xin", "xin", "chào"))
        >>> model_identity(first) == model_identity(same), model_identity(first) == model_identity(other)
        (True, False)
    """
    digest = hashlib.sha256(_json([model.max_seq_length, model.truncate_dim]))
    for name, module in model.named_modules():
        if isinstance(module, Module):
            config: Any = getattr(module, "config", None)
            config = config.to_dict() if hasattr(config, "to_dict") else None
            digest.update(_json([name, fullname(module), module.get_config_dict(), _what_matters(config)]))
            digest.update(_json(_tokenizer_state(getattr(module, "tokenizer", None))))
    for name, tensor in _used_weights(model):
        digest.update(_json([name, str(tensor.dtype), list(tensor.shape)]))
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
    return digest.hexdigest()


def rows_identity(rows: Iterable[Any]) -> str:
    """A hash over inputs; of a picture in a file or on the web it knows the name only."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(_json(_plain(row)))
        digest.update(b"\n")
    return digest.hexdigest()


def _used_weights(model: SentenceTransformer) -> Iterator[tuple[str, torch.Tensor]]:
    """All weights by name, without a pooler that nothing reads: where a checkpoint has none, it is random."""
    outputs = {
        name: {output["method_output_name"] for output in module.modality_config.values()}
        for name, module in model.named_modules()
        if isinstance(module, Transformer)
    }
    unread = tuple(f"{name}.model.pooler." for name, read in outputs.items() if read == {"last_hidden_state"})
    for name, tensor in sorted(model.state_dict().items()):
        if not name.startswith(unread):
            yield name, tensor


def _what_matters(config: Any) -> Any:
    if not isinstance(config, dict):
        return config
    return {
        key: _what_matters(value)
        for key, value in config.items()
        if key not in _NO_MATTER and not str(key).startswith("_")
    }


def _tokenizer_state(tokenizer: Any) -> Any:
    if hasattr(tokenizer, "backend_tokenizer"):
        state = json.loads(tokenizer.backend_tokenizer.to_str())
        # The last call's, not the model's.
        return {key: value for key, value in state.items() if key not in ("padding", "truncation")}
    return tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else None


def _plain(value: Any) -> Any:
    """Pictures and arrays by their content, all else as JSON has it."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if hasattr(value, "tobytes"):  # PIL and numpy
        return [np.shape(value), hashlib.sha256(value.tobytes()).hexdigest()]
    return value


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode()

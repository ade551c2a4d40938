"""Stable hashes of models and inputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Module, Transformer
from sentence_transformers.util import fullname

FINGERPRINT_BYTES = 8
"""Size of a row fingerprint, stored for every row of a corpus."""

# These change with saving, loading or moving a model, without an effect on embeddings.
_NO_MATTER = {"architectures", "dtype", "torch_dtype", "transformers_version"}


def model_identity(model: SentenceTransformer) -> str:
    """A hash of weights, configurations and tokenizers, independent of the folder of the model.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from st_vi.identity import model_identity
        >>> first, same, other = (SentenceTransformer(modules=[BoW([word])]) for word in ("xin", "xin", "chào"))
        >>> model_identity(first) == model_identity(same), model_identity(first) == model_identity(other)
        (True, False)
    """
    digest = hashlib.sha256(_json([model.max_seq_length, model.truncate_dim]))
    for name, module in model.named_modules():
        # A disabled adapter has the same weights as an enabled one, and another lora_alpha none at all.
        if (switch := getattr(module, "disable_adapters", None)) is not None and not callable(switch):
            settings = [getattr(module, key, None) for key in ("active_adapter", "scaling")]
            digest.update(_json([name, bool(switch), *settings]))
        elif name and "." not in name and not isinstance(module, Module):
            digest.update(_json([name, fullname(module)]))
        if isinstance(module, Module):
            config: Any = getattr(module, "config", None)
            config = config.to_dict() if hasattr(config, "to_dict") else None
            digest.update(_json([name, fullname(module), module.get_config_dict(), _what_matters(config)]))
            digest.update(_json(tokenizer_state(getattr(module, "tokenizer", None))))
            digest.update(_json(processor_state(getattr(module, "processor", None))))
        if hasattr(module, "prompts_of"):  # a `TaskRouter`, which chooses among them
            digest.update(_json(model.prompts))
    for name, tensor in _used_weights(model):
        digest.update(_json([name, str(tensor.dtype), list(tensor.shape)]))
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
    return digest.hexdigest()


def fingerprint(row: Any) -> bytes:
    """A short hash of a row of nested dicts and lists, in which images and files (`Path`) are hashed by content."""
    return hashlib.sha256(_json(_plain(row))).digest()[:FINGERPRINT_BYTES]


def _used_weights(model: SentenceTransformer) -> Iterator[tuple[str, torch.Tensor]]:
    """All weights by name, without an unused pooler, which is random if the checkpoint has none."""
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


def tokenizer_state(tokenizer: Any) -> Any:
    """A JSON value of what makes the tokens of a text, or None without a tokenizer."""
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)  # a static model has one without transformers
    if hasattr(backend, "to_str"):
        state = json.loads(backend.to_str())
        # State of the last call, not of the model.
        state = {key: value for key, value in state.items() if key not in ("padding", "truncation")}
    else:
        state = tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else None
    return [state, getattr(tokenizer, "truncation_side", None)]  # the latter says which end of a long text is cut


def processor_state(processor: Any) -> Any:
    """A JSON value of the chat template and the image settings."""
    pictures: Any = getattr(processor, "image_processor", None)
    state = pictures.to_dict() if hasattr(pictures, "to_dict") else None
    return [getattr(processor, "chat_template", None), _what_matters(state)]


def _plain(value: Any) -> Any:
    """A JSON value in which images and arrays are replaced by their content."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, Path):
        try:
            with value.open("rb") as file:
                return ["file", hashlib.file_digest(file, "sha256").hexdigest()]
        except OSError:
            return ["no file", str(value)]
    if isinstance(value, (bytes, bytearray)):
        return ["file", hashlib.sha256(value).hexdigest()]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype == object:  # its bytes would be addresses
        return _plain(value.tolist())
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().float().numpy()
    if hasattr(value, "tobytes"):  # PIL and numpy
        kind = str(getattr(value, "mode", None) or getattr(value, "dtype", ""))
        colours = value.getpalette() if kind == "P" else None
        return [kind, np.shape(value), hashlib.sha256(value.tobytes()).hexdigest(), colours]
    return value


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode()

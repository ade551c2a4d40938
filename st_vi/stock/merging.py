"""The private check with which sentence-transformers begins to merge models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sentence_transformers import SentenceTransformer
from sentence_transformers.base import merging
from transformers import PreTrainedModel

_SET_BY_TRAINING = ("bos_token_id", "eos_token_id", "pad_token_id", "use_cache")


def check_same_kind(models: Sequence[SentenceTransformer]) -> None:
    """Raise unless all models have the same modules, configurations and vocabularies.

    ``_validate_models`` is the first step of the public ``SentenceTransformer.merge``, all other steps of which need
    mergekit. If the name disappears, merging stops with an error; `tests/recipes/test_merging.py` fails.

    What the trainer of transformers sets in a configuration may differ, as a base was never trained: the ids of special
    tokens (``align_special_tokens``), which follow from the vocabulary, and ``use_cache``.

    Args:
        models: At least two.

    Raises:
        ValueError: They differ; names the module, and the model by its place.
    """
    with _as_before_training(models):
        merging._validate_models(models)


@contextmanager
def _as_before_training(models: Sequence[SentenceTransformer]) -> Iterator[None]:
    """No configuration has what training sets, neither for itself nor for its part for text."""
    parts = [part.config for model in models for part in model.modules() if isinstance(part, PreTrainedModel)]
    configs = {id(config): config for part in parts for config in (part, part.get_text_config())}.values()
    states = [vars(config) for config in configs]
    kept = [{name: state.pop(name) for name in _SET_BY_TRAINING if name in state} for state in states]
    try:
        yield
    finally:
        for state, values in zip(states, kept, strict=True):
            state.update(values)

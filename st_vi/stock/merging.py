"""The private check with which sentence-transformers begins to merge models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sentence_transformers import SentenceTransformer
from sentence_transformers.base import merging
from transformers import PreTrainedModel

_OF_TOKENIZER = ("bos_token_id", "eos_token_id", "pad_token_id")


def check_same_kind(models: Sequence[SentenceTransformer]) -> None:
    """Raise unless all models have the same modules, configurations and vocabularies.

    ``_validate_models`` is the first step of the public ``SentenceTransformer.merge``, all other steps of which need
    mergekit. If the name disappears, merging stops with an error; `tests/recipes/test_merging.py` fails.

    Ids of special tokens may differ in the configurations: the trainer of transformers copies them from the tokenizer
    (``align_special_tokens``), so a trained model has ids that its base may lack. The vocabularies are compared anyway.

    Args:
        models: At least two.

    Raises:
        ValueError: They differ; names the module, and the model by its place.
    """
    with _without_token_ids(models):
        merging._validate_models(models)


@contextmanager
def _without_token_ids(models: Sequence[SentenceTransformer]) -> Iterator[None]:
    parts = [part for model in models for part in model.modules() if isinstance(part, PreTrainedModel)]
    configs = {id(part.config): part.config for part in parts}.values()
    kept = [(config, {name: getattr(config, name, None) for name in _OF_TOKENIZER}) for config in configs]
    try:
        for config, ids in kept:
            for name in ids:
                setattr(config, name, None)
        yield
    finally:
        for config, ids in kept:
            for name, value in ids.items():
                setattr(config, name, value)

"""The private check with which sentence-transformers begins to merge models."""

from __future__ import annotations

from collections.abc import Sequence

from sentence_transformers import SentenceTransformer
from sentence_transformers.base import merging


def check_same_kind(models: Sequence[SentenceTransformer]) -> None:
    """Raise unless all models have the same modules, configurations and vocabularies.

    ``_validate_models`` is the first step of the public ``SentenceTransformer.merge``, all other steps of which need
    mergekit. If the name disappears, merging stops with an error; `tests/recipes/test_merging.py` fails.

    Args:
        models: At least two.

    Raises:
        ValueError: They differ; names the module, and the model by its place.
    """
    merging._validate_models(models)

"""Faithfulness of attention weights: how far an embedding drifts if units are deleted or masked."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from st_vi.inspection.attention import PooledText, Unit, pool_texts, repool
from st_vi.text.units import without


def deletions(model: SentenceTransformer, view: PooledText, deleted: Sequence[Unit]) -> list[PooledText]:
    """Encode the text again without each of these units, with the prefix and pooling settings of the view.

    A truncated text is first cut to the part that the model saw, so that no new text moves in.

    Args:
        model: The model of the view.
        view: An item of `pool_texts`.
        deleted: Units of kind "text", from `units`.

    Raises:
        ValueError: A unit is not part of the user's text.

    Example:
        >>> from st_vi.inspection.attention import pool_texts, units
        >>> from st_vi.inspection.faithfulness import cosine_drift, deletions
        >>> from st_vi.recipes.examples.text_models import example_text_model
        >>> model = example_text_model()  # doctest: +SKIP
        >>> (view,) = pool_texts(model, ["Trời mưa to."])  # doctest: +SKIP
        >>> syllables = [unit for unit in units(view) if unit.kind == "text"]  # doctest: +SKIP
        >>> cosine_drift(view, deletions(model, view, syllables)).shape  # doctest: +SKIP
        torch.Size([3])
    """
    start, end = view.read.seen
    texts = []
    for unit in deleted:
        if unit.kind != "text":
            raise ValueError(f"{unit.text!r} is not of the text itself and cannot be deleted")
        texts.append(without(view.read.text[start:end], (unit.span[0] - start, unit.span[1] - start)))
    return pool_texts(
        model, texts, prompt=view.prompt or "", temperature=view.temperature, include_prompt=view.include_prompt
    )


def maskings(model: SentenceTransformer, view: PooledText, masked: Sequence[Unit]) -> list[PooledText]:
    """Pool the view without each of these units. The other tokens still depend on them through the backbone.

    Args:
        model: The model of the view.
        view: An item of `pool_texts`.
        masked: Units from `units`.
    """
    tokens = [unit.tokens for unit in masked]
    return repool(model, [view] * len(masked), view.temperature, view.include_prompt, tokens)


def cosine_drift(view: PooledText, others: Sequence[PooledText]) -> Tensor:
    """Distance of each embedding from that of the view: 1 − cosine, (len(others),), from 0 to 2.

    Args:
        view: The original text.
        others: For example its `deletions`.

    Source: erasure as in Li et al., arXiv 1612.08220. Attention need not agree with it: Jain and Wallace, arXiv
    1902.10186.
    """
    if not others:
        return torch.empty(0)
    return 1 - torch.cosine_similarity(view.embedding[None], torch.stack([other.embedding for other in others]))

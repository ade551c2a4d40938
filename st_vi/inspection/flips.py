"""Queries on which two poolings disagree, and the syllables responsible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor

from st_vi.evaluation.geometry.vectors import as_tensor
from st_vi.inspection.rankings import cosine_matrix, top_k_margins
from st_vi.modules import AttentionPooling
from st_vi.stock.models import with_modules


@dataclass(frozen=True)
class Flips:
    """The queries that only one of two poolings answers in its top k.

    Attributes:
        only_a: Rows of the queries that only pooling A answers.
        only_b: Rows of the queries that only pooling B answers.
    """

    only_a: list[int]
    only_b: list[int]


def find_flips(a: Tensor, b: Tensor, margin: float = 0.0) -> Flips:
    """Queries whose relevant document is in the top k under one pooling but not under the other.

    Args:
        a: Margins (Q,) from `top_k_margins` under pooling A.
        b: Margins (Q,) under pooling B, for the same queries and k.
        margin: Minimum distance in cosine, at least 0, by which the document must be inside the top k under one and
            outside under the other. A larger margin excludes flips due to noise. The spread of cosines may differ
            between poolings.

    Raises:
        ValueError: The margin is negative, or the lengths differ.

    Example:
        >>> import torch
        >>> from st_vi.inspection.flips import find_flips
        >>> find_flips(torch.tensor([0.2, 0.1, -0.3]), torch.tensor([-0.1, 0.3, 0.01]))
        Flips(only_a=[0], only_b=[2])
    """
    a, b = as_tensor(a), as_tensor(b)
    if not margin >= 0 or a.shape != b.shape:
        raise ValueError(f"margin must be at least 0 and the lengths equal, got {margin}, {len(a)} and {len(b)}")
    only_a, only_b = (a > margin) & (b <= -margin), (b > margin) & (a <= -margin)
    return Flips(only_a.nonzero().flatten().tolist(), only_b.nonzero().flatten().tolist())


def without_each_syllable(text: str) -> list[str]:
    """The text without its first, second, … syllable; empty for a text of one syllable.

    Example:
        >>> from st_vi.inspection.flips import without_each_syllable
        >>> without_each_syllable("Hà Nội đẹp")
        ['Nội đẹp', 'Hà đẹp', 'Hà Nội']
    """
    parts = text.split()
    return [" ".join(parts[:i] + parts[i + 1 :]) for i in range(len(parts))] if len(parts) > 1 else []


def margins_without_syllables(
    model: SentenceTransformer, query: str, corpus: Tensor, relevant: int, k: int, prompt_name: str | None = None
) -> Tensor:
    """`top_k_margins` for a query of S syllables, whole and without each of its syllables, (S + 1,).

    Args:
        model: Encodes the S + 1 texts, in batches of 64.
        query: Text of the query.
        corpus: Embeddings (N, D) of the documents by the same model.
        relevant: Row of the relevant document.
        k: Cutoff, from 1 to N.
        prompt_name: Name of the prompt for queries.
    """
    texts = [query, *without_each_syllable(query)]
    embeddings = model.encode(
        texts, prompt_name=prompt_name, batch_size=64, convert_to_tensor=True, show_progress_bar=False
    )
    return top_k_margins(cosine_matrix(embeddings.to(corpus.device), corpus), [relevant] * len(texts), k)


@dataclass(frozen=True)
class SyllableEffect:
    """Effect of leaving one syllable out of a query on two poolings.

    Attributes:
        position: Position of the syllable in the query, from 0.
        syllable: The syllable as written.
        effect: How much closer the margins of the poolings are without it.
        undoes: Whether the poolings disagree on the query, but agree without the syllable.
    """

    position: int
    syllable: str
    effect: float
    undoes: bool


def syllable_effects(query: str, a: Tensor, b: Tensor) -> list[SyllableEffect]:
    """Syllables by their effect on the difference between two poolings, those that undo a flip first.

    A query without a syllable is a different query, perhaps an unnatural one. This shows on which syllables a ranking
    depends; it does not explain the model.

    Args:
        query: Text of S syllables.
        a: (S + 1,) from `margins_without_syllables` under pooling A.
        b: (S + 1,) under pooling B.

    Example:
        >>> import torch
        >>> from st_vi.inspection.flips import syllable_effects
        >>> a, b = torch.tensor([0.3, 0.3, 0.1]), torch.tensor([-0.2, -0.3, 0.1])
        >>> syllable_effects("đừng đi", a, b)[0]
        SyllableEffect(position=1, syllable='đi', effect=0.5, undoes=True)
    """
    a, b = as_tensor(a), as_tensor(b)
    distance = (a - b) * (1 if a[0] >= b[0] else -1)
    agree = (a > 0) == (b > 0)
    effects = [
        SyllableEffect(i, syllable, round(float(distance[0] - distance[i + 1]), 6), bool(~agree[0] & agree[i + 1]))
        for i, syllable in enumerate(query.split())
        if len(a) > 1
    ]
    return sorted(effects, key=lambda effect: (not effect.undoes, -effect.effect))


def repooled(model: SentenceTransformer, pooling: str) -> SentenceTransformer:
    """The same backbone and head with another pooling. Weights are shared, not copied; prompts and settings are equal.

    The head was trained with the original pooling: this shows how much the pooling matters to the head, not how good
    another pooling would be after training.

    Args:
        model: Model with an `AttentionPooling` or a stock `Pooling`.
        pooling: A mode of the stock `Pooling` that keeps the dimension, such as "mean" or "lasttoken".

    Raises:
        ValueError: The model has no such pooling, or the output of the pooling is wider than a token.
    """
    parts: dict[str, Any] = dict(model.named_children())
    places = [name for name, module in parts.items() if isinstance(module, (AttentionPooling, Pooling))]
    if not places:
        raise ValueError("the model has neither AttentionPooling nor Pooling to replace")
    old = parts[places[0]]
    if old.get_embedding_dimension() != old.embedding_dimension:
        raise ValueError(
            f"the head takes {old.get_embedding_dimension()} numbers from several heads or modes; "
            f"{pooling!r} gives {old.embedding_dimension}"
        )
    parts[places[0]] = Pooling(old.embedding_dimension, pooling, include_prompt=old.include_prompt)
    return with_modules(model, parts)

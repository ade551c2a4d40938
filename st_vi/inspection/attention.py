"""Attention weights of a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import batch_to_device, truncate_embeddings
from torch import Tensor, nn

from st_vi.checks import check_model, check_whole
from st_vi.evaluation.base import by_place
from st_vi.inputs.kinds import as_texts
from st_vi.inputs.prompts import prompt_of
from st_vi.inspection.read_text import ReadText, read_text
from st_vi.modules import AttentionPooling
from st_vi.modules.attention_pooling import attention_weights, pooled_tokens
from st_vi.text.units import By, Span, groups

Kind = Literal["text", "prefix", "special"]


@dataclass(frozen=True)
class PooledText:
    """A text as seen by a model with attention pooling: N tokens, their weights, and the embedding.

    Attributes:
        read: The text as tokenized, including the prefix.
        pooled: Which tokens the model itself pools, (N,) bool.
        token_embeddings: h, (N, D).
        weights: a, (N,), fp32, sum 1; the mean over heads.
        embedding: Embedding of the whole model, equal to `encode`.
        prompt: Prefix of the text; None or "" for none.
        temperature: T in a = softmax(u / T); the model has 1.
        include_prompt: Whether prefix tokens were pooled; None for the setting of the model.
    """

    read: ReadText
    pooled: Tensor
    token_embeddings: Tensor
    weights: Tensor
    embedding: Tensor
    prompt: str | None
    temperature: float
    include_prompt: bool | None

    @property
    def truncated(self) -> bool:
        """Whether the text was truncated to the maximum length of the model."""
        return self.read.truncated

    def share(self, kind: Kind) -> float:
        """The sum of the weights on all tokens of this kind, from 0 to 1."""
        return float(self.weights[torch.tensor([other == kind for other in self.read.kinds])].sum())


@dataclass(frozen=True)
class Unit:
    """A syllable or a sub-word token.

    Attributes:
        text: Its letters; "␣" for a space, or the name of the token if it has no letters.
        kind: "text" for the user's text.
        tokens: Indices of its tokens.
        span: Its characters in `ReadText.text`.
        weight: Sum of the weights of its tokens.
    """

    text: str
    kind: Kind
    tokens: tuple[int, ...]
    span: Span
    weight: float


@torch.no_grad()
def pool_texts(
    model: SentenceTransformer,
    texts: Sequence[str],
    prompt: str | None = None,
    prompt_name: str | None = None,
    temperature: float = 1.0,
    include_prompt: bool | None = None,
    batch_size: int = 64,
) -> list[PooledText]:
    """Encode texts, and keep the attention weights.

    Args:
        model: Model with an `AttentionPooling` module and a fast tokenizer.
        texts: Texts in any Unicode form, also if one is the path of an image; "" has only special tokens.
        prompt: As for `encode`; "" overrides the default prompt of the model.
        prompt_name: As for `encode`.
        temperature: T in softmax(u / T), above 0: below 1 sharpens the weights, above 1 flattens them.
        include_prompt: Whether the tokens of the prefix are pooled; None for the setting of the model. Prefix tokens
            are found by their characters, so this also works if the backbone sets no ``prompt_length``
            (`Qwen2VLTransformer`).
        batch_size: Texts per batch.

    Raises:
        ValueError: The model does not have exactly one attention pooling, its tokenizer gives no offsets, or
            `temperature` is not above 0; `batch_size` is no positive integer; or there is one text in place of a list.

    Example:
        >>> from st_vi.inspection.attention import pool_texts, units
        >>> from st_vi.recipes.examples.text_models import example_text_model
        >>> model = example_text_model()  # doctest: +SKIP
        >>> (view,) = pool_texts(model, ["Trời mưa to."], prompt_name="text_pair")  # doctest: +SKIP
        >>> [unit.text for unit in units(view)]  # doctest: +SKIP
        ['<s>', 'cặp', 'câu:', 'Trời', 'mưa', 'to.', '</s>']
    """
    texts = by_place(texts)
    check_whole("batch_size", batch_size)
    before, pooling, _ = around_pooling(model)
    prompt = prompt_of(model, prompt, prompt_name)
    model.eval()
    views = []
    for start in range(0, len(texts), batch_size):
        batch = list(texts[start : start + batch_size])
        features = batch_to_device(model.preprocess(as_texts(model, batch), prompt=prompt), model.device)
        features = before(features)
        own = pooled_tokens(features, pooling.include_prompt)  # (B, N), even for inputs flattened into one row
        present = pooled_tokens(features)
        ids, tokens = (
            features[name].expand(len(batch), *features[name].shape[1:]) for name in ("input_ids", "token_embeddings")
        )
        for row, text in enumerate(batch):
            kept = present[row]
            read = read_text(model[0], text, prompt, ids[row][kept].tolist())  # type: ignore[arg-type]
            none = torch.empty(0)
            views.append(PooledText(read, own[row][kept], tokens[row][kept], none, none, prompt, 1.0, None))
    return repool(model, views, temperature, include_prompt)


@torch.no_grad()
def repool(
    model: SentenceTransformer,
    views: Sequence[PooledText],
    temperature: float = 1.0,
    include_prompt: bool | None = None,
    leave_out: Sequence[Sequence[int]] | None = None,
) -> list[PooledText]:
    """Pool the same token embeddings with other settings, without running the backbone again.

    Args:
        model: The model of the views.
        views: Result of `pool_texts`.
        temperature: As for `pool_texts`.
        include_prompt: As for `pool_texts`.
        leave_out: For every view, indices of tokens that are not pooled.

    Raises:
        ValueError: `temperature` is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    if not views:
        return []
    _, pooling, after = around_pooling(model)
    weights, pooled = [], []
    for number, view in enumerate(views):
        a, c = _pool(view, pooling, temperature, include_prompt, leave_out[number] if leave_out else ())
        weights.append(a)
        pooled.append(c)
    embeddings = after({"sentence_embedding": torch.stack(pooled)})["sentence_embedding"]
    embeddings = truncate_embeddings(embeddings, model.truncate_dim).float().cpu()
    return [
        replace(view, weights=a, embedding=embedding, temperature=temperature, include_prompt=include_prompt)
        for view, a, embedding in zip(views, weights, embeddings, strict=True)
    ]


def _pool(
    view: PooledText,
    pooling: AttentionPooling,
    temperature: float,
    include_prompt: bool | None,
    leave_out: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Weights (N,) and the pooled vector (H·D,); with default settings, equal to `AttentionPooling`."""
    belongs = view.pooled.clone() if include_prompt is not True else torch.ones_like(view.pooled)
    if include_prompt is False:
        belongs &= torch.tensor([kind != "prefix" for kind in view.read.kinds], device=belongs.device)
    belongs[list(leave_out)] = False
    tokens = view.token_embeddings
    v = pooling.attention_context_vector.to(tokens.dtype)
    if temperature != 1:
        v = v / temperature
    a = attention_weights(tokens[None], v, belongs)[0]  # (H, N)
    return a.mean(dim=0).float().cpu(), (a.to(tokens.dtype) @ tokens).flatten()


def around_pooling(model: SentenceTransformer) -> tuple[nn.Sequential, AttentionPooling, nn.Sequential]:
    """The modules before the attention pooling of a model, which has exactly one, the pooling, and those after it."""
    check_model(model)
    modules = list(model)
    places = [place for place, module in enumerate(modules) if isinstance(module, AttentionPooling)]
    if len(places) != 1:
        names = ", ".join(type(module).__name__ for module in modules)
        raise ValueError(
            f"the model needs exactly one AttentionPooling among its modules, whose weights are looked at, but has "
            f"{names}; other poolings have no weights"
        )
    (place,) = places
    return nn.Sequential(*modules[:place]), modules[place], nn.Sequential(*modules[place + 1 :])  # type: ignore[return-value]


def units(view: PooledText, by: By = "syllable") -> list[Unit]:
    """All units of a text from left to right, including special tokens and prefix.

    Args:
        view: An item of `pool_texts`.
        by: "syllable" merges all tokens between two spaces; "token" keeps sub-words apart, except parts of one letter.

    Raises:
        ValueError: `by` is unknown.
    """
    read, found = view.read, []
    for members in groups(read.text, read.spans, by):
        runs: list[list[int]] = []  # groups do not cross the end of the prefix; each special token is its own group
        for token in members:
            kind = read.kinds[token]
            if runs and kind != "special" and read.kinds[runs[-1][-1]] == kind:
                runs[-1].append(token)
            else:
                runs.append([token])
        found += [_unit(view, run) for run in runs]
    return found


def _unit(view: PooledText, tokens: list[int]) -> Unit:
    read = view.read
    start, end = min(read.spans[token][0] for token in tokens), max(read.spans[token][1] for token in tokens)
    letters, kind = read.text[start:end], read.kinds[tokens[0]]
    name = letters.strip() or ("␣" if letters and kind != "special" else read.tokens[tokens[0]])
    return Unit(name, kind, tuple(tokens), (start, end), float(view.weights[tokens].sum()))


def effective_number(weights: Tensor) -> Tensor:
    """exp of the entropy of the weights: N for N equal weights, 1 for a single weight of 1.

    Args:
        weights: (…, N), non-negative, sum 1.

    Example:
        >>> import torch
        >>> from st_vi.inspection.attention import effective_number
        >>> effective_number(torch.tensor([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]]))
        tensor([4., 1.])
    """
    return torch.special.entr(weights).sum(dim=-1).exp()

"""Trimming of the vocabulary and embeddings of a model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from st_vi.vocabulary.pieces import (
    always_kept,
    count_pieces,
    cut_spec,
    encode_pieces,
    is_letter,
    pieces_of,
    tokenizer_spec,
    tokenizer_with,
    with_parts,
)

_VIETNAMESE = re.compile(
    "[ăâđêôơưạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ]|[aeiouy][\u0300\u0301\u0303\u0309\u0323]", re.I
)
_HELD_OUT = 20  # one in this many texts is held out for evaluation
_MEASURED = 500


@dataclass(frozen=True)
class Trimmed:
    """Report of `trim_vocabulary`.

    Attributes:
        pieces_before: Number of pieces before trimming.
        pieces: Number of pieces after trimming.
        weights_before: Number of weights before trimming.
        weights: Number of weights after trimming.
        held_out: Number of held-out texts, on which no pieces were counted.
        pieces_lost: Share of the pieces of these texts that were removed, in [0, 1]; they are now split into smaller
            ones.
        largest_change: Largest change of the vector of a held-out text, 1 − cosine.
        largest_change_whole: The same over texts that lost no piece, which is only rounding.
        unknown: Number of held-out texts that can no longer be written completely.
    """

    pieces_before: int
    pieces: int
    weights_before: int
    weights: int
    held_out: int
    pieces_lost: float
    largest_change: float
    largest_change_whole: float
    unknown: int

    def __str__(self) -> str:
        return (
            f"{self.pieces_before:,} pieces to {self.pieces:,}, {self.weights_before / 1e6:.1f} million weights to "
            f"{self.weights / 1e6:.1f}; {100 * self.pieces_lost:.2f} % of the pieces of {self.held_out} held-out texts "
            f"are lost, and the vectors move by 1 − cos ≤ {self.largest_change:.2g} ({self.largest_change_whole:.2g} "
            f"where none is lost); {self.unknown} texts can no longer be written in full"
        )

    def as_dict(self) -> dict[str, float]:
        """The report as a dict, for a log or a JSON file."""
        return asdict(self)


def trim_vocabulary(
    model: SentenceTransformer,
    texts: Iterable[str],
    *,
    max_pieces: int | None = None,
    min_count: int = 1,
    keep: Iterable[str] = (),
    held_out: Sequence[str] | None = None,
    vietnamese: bool = True,
) -> Trimmed:
    """Trim the vocabulary and the embeddings of `model`, in place, to the pieces used in `texts`.

    Most weights of a multilingual encoder are token embeddings: 192 of 278 million in XLM-R-base. A text whose pieces
    are all kept is tokenized as before and has the same vector. Special and added tokens, single letters and bytes are
    always kept, so that removed pieces are split into smaller ones.

    Supports fast tokenizers: Unigram (XLM-R, E5), BPE (also byte-level, as in Qwen2-VL; with all pieces that a kept one
    is merged from) and WordPiece. Tied output embeddings stay tied. Embedding rows without a piece are removed too.
    Token ids change: tokenize stored ids again.

    Args:
        model: A model whose first module is a `Transformer`.
        texts: About ten thousand paragraphs or more of the target language and domain, with and without diacritics if
            the model should read both.
        max_pieces: Maximum number of pieces, including those always kept; the most frequent ones are kept. None for no
            limit.
        min_count: Minimum number of occurrences of a kept piece.
        keep: Further texts whose pieces are kept even if rare, such as prompts or technical terms.
        held_out: Texts for evaluation; None holds out every 20th of `texts`, at most 500.
        vietnamese: Check that the texts are Vietnamese, to detect a wrong file.

    Returns:
        A report of sizes and changes; as a string, one sentence.

    Raises:
        ValueError: The tokenizer cannot be trimmed, `texts` are empty or not Vietnamese, or `max_pieces` is less than
            what is always kept. The model is unchanged.

    Example:
        >>> from st_vi import load, trim_vocabulary
        >>> from st_vi.data import sample_retrieval
        >>> model = load("vi-mini")  # cut to Vietnamese already; here to a few everyday passages
        >>> report = trim_vocabulary(model, sorted(set(sample_retrieval("train")["passage"])))
        >>> report.pieces_before, report.pieces < 6_000, report.unknown
        (14300, True, 0)
        >>> report.largest_change_whole  # a vector moves only where a piece is lost
        0.0
    """
    transformer = _transformer(model)
    tokenizer: Any = transformer.tokenizer
    spec = tokenizer_spec(tokenizer)
    counted, held_out = _texts(texts, held_out, vietnamese)
    kept = _kept(transformer, spec, counted, keep, max_pieces, min_count)

    before = _vectors(model, held_out)
    were = [set(pieces) for pieces in encode_pieces(tokenizer, held_out)]
    lost = [len(pieces - kept) for pieces in were]
    sizes = len(tokenizer), _weights(model)
    unknown_before = _unknown(tokenizer, held_out)
    order = sorted(kept)
    _cut_embeddings(transformer.model, order)
    _put_tokenizer(transformer, tokenizer_with(tokenizer, cut_spec(spec, order), order), order)

    change = 1 - torch.nn.functional.cosine_similarity(before, _vectors(model, held_out), dim=1)
    whole = change[[not missing for missing in lost]]
    return Trimmed(
        pieces_before=sizes[0],
        pieces=len(order),
        weights_before=sizes[1],
        weights=_weights(model),
        held_out=len(held_out),
        pieces_lost=sum(lost) / max(1, sum(map(len, were))),
        largest_change=max(0.0, float(change.max())) if len(change) else 0.0,
        largest_change_whole=max(0.0, float(whole.max())) if len(whole) else 0.0,
        unknown=len(_unknown(transformer.tokenizer, held_out) - unknown_before),
    )


def unwritable(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[int]:
    """Indices of the `texts` that the tokenizer cannot write completely."""
    return sorted(_unknown(tokenizer, texts))


def _unknown(tokenizer: Any, texts: Sequence[str]) -> set[int]:
    unknown = tokenizer.unk_token_id
    if unknown is None:
        return set()
    return {number for number, pieces in enumerate(encode_pieces(tokenizer, texts)) if unknown in pieces}


def check_vietnamese(texts: Sequence[str], otherwise: str = "") -> None:
    """Check that a tenth of the first texts are Vietnamese, by letters that French, English and Indonesian lack.

    `otherwise` ends the message of the error.
    """
    if not texts:
        raise ValueError("there are no texts to count pieces in")
    first = texts[:1000]
    vietnamese = sum(bool(_VIETNAMESE.search(text)) for text in first)
    if vietnamese < len(first) / 10:
        raise ValueError(
            f"the texts are not Vietnamese: {vietnamese} of the first {len(first)} have a Vietnamese letter; the first "
            f"is {first[0][:60]!r}{otherwise}"
        )


def _texts(texts: Iterable[str], held_out: Sequence[str] | None, vietnamese: bool) -> tuple[list[str], list[str]]:
    given = _listed(texts)
    if wrong := [number for number, text in enumerate(given) if not isinstance(text, str)]:
        raise ValueError(f"expected texts, and number {wrong[0]} is {given[wrong[0]]!r}")
    given = [text for text in given if text.strip()]
    if vietnamese or not given:
        check_vietnamese(given, ". vietnamese=False (--any-language) accepts any language")
    if held_out is not None:
        return given, _listed(held_out)
    measured = list(islice(given, _HELD_OUT - 1, None, _HELD_OUT))[:_MEASURED]
    taken = set(range(_HELD_OUT - 1, _HELD_OUT * len(measured), _HELD_OUT))
    return [text for number, text in enumerate(given) if number not in taken], measured


def _listed(texts: Iterable[str]) -> list[str]:
    """The texts; a string is one, not its letters."""
    return [texts] if isinstance(texts, str) else list(texts)


def _transformer(model: SentenceTransformer) -> Transformer:
    first: Any = model[0] if isinstance(model, SentenceTransformer) else model
    if not isinstance(first, Transformer) or first.tokenizer is None:
        raise ValueError(f"expected a SentenceTransformer whose first module is a text Transformer, got {model!r:.200}")
    embeddings = getattr(first.model, "get_input_embeddings", lambda: None)()
    if any(type(part).__module__.startswith("peft.") for part in (first.model, embeddings)):
        raise ValueError("the model has an adapter around its embeddings: call st_vi.recipes.merge_lora(model) first")
    if not isinstance(first.model, PreTrainedModel):
        raise ValueError(
            f"the vocabulary of a {type(first.model).__name__} cannot be cut: load it with backend='torch'"
        )
    return first


def _kept(
    transformer: Transformer,
    spec: dict[str, Any],
    texts: list[str],
    keep: Iterable[str],
    max_pieces: int | None,
    min_count: int,
) -> set[int]:
    tokenizer: Any = transformer.tokenizer
    kept = always_kept(tokenizer, spec)
    padding = getattr(getattr(transformer.model, "embeddings", None), "padding_idx", None)
    if padding is not None:  # positions start after it
        kept |= set(range(padding + 1))
    kept |= with_parts(spec, count_pieces(tokenizer, _listed(keep)))
    if max_pieces is not None and max_pieces < len(kept):
        raise ValueError(
            f"max_pieces={max_pieces} is less than the {len(kept)} special tokens, single letters and pieces of `keep`"
        )
    frequent = [n for n, count in count_pieces(tokenizer, texts).most_common() if count >= min_count and n not in kept]
    if max_pieces is None:
        return kept | with_parts(spec, frequent)
    room = max_pieces - len(kept)
    if spec["model"]["type"] != "BPE":
        return kept | with_parts(spec, frequent, room)
    letters = {number for piece, number in pieces_of(spec).items() if is_letter(piece)}
    return kept | with_parts(spec, [*letters, *frequent], room + len(letters))


def _weights(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _vectors(model: SentenceTransformer, texts: Sequence[str]) -> Tensor:
    if not texts:
        return torch.empty(0, 1)
    found: Any = model.encode(list(texts), convert_to_tensor=True, show_progress_bar=False)
    return found.float().cpu()


def _cut_embeddings(backbone: PreTrainedModel, kept: Sequence[int]) -> None:
    """Keep only the rows of the kept pieces in the input embeddings, tied weights and their biases."""
    embeddings: Any = backbone.get_input_embeddings()
    rows = len(embeddings.weight)
    place = torch.tensor(kept)
    embeddings_of = [embeddings]
    output: Any = backbone.get_output_embeddings()
    cut: dict[int, nn.Parameter] = {}
    if output is not None and len(output.weight) == rows:
        embeddings_of.append(output)
    for module in embeddings_of:
        for name, parameter in list(module.named_parameters(recurse=False)):
            if len(parameter) != rows:
                continue
            if id(parameter) not in cut:  # keeps tied weights tied
                chosen = parameter.data[place.to(parameter.device)].clone()
                cut[id(parameter)] = nn.Parameter(chosen, requires_grad=parameter.requires_grad)
            setattr(module, name, cut[id(parameter)])
    embeddings.num_embeddings = len(kept)
    if output is not None and len(embeddings_of) > 1:
        output.out_features = len(kept)
    number = {old: new for new, old in enumerate(kept)}
    if embeddings.padding_idx is not None:
        embeddings.padding_idx = number.get(embeddings.padding_idx)
    for config in (backbone.config, getattr(backbone, "generation_config", None)):
        _renumber_config(config, number, rows)


def _renumber_config(config: Any, number: dict[int, int], rows: int) -> None:
    """Update special token ids and vocabulary size in a configuration and nested ones."""
    if config is None:
        return
    for name, value in list(vars(config).items()):
        if isinstance(value, PretrainedConfig):
            _renumber_config(value, number, rows)
        elif name.endswith("_token_id") and isinstance(value, int):
            setattr(config, name, number.get(value))
        elif name.endswith("_token_id") and isinstance(value, list):
            setattr(config, name, [number[old] for old in value if old in number])
        elif name == "vocab_size" and value == rows:
            config.vocab_size = len(number)


def _put_tokenizer(transformer: Transformer, tokenizer: Any, kept: Sequence[int]) -> None:
    if isinstance(transformer.processor, PreTrainedTokenizerBase):
        transformer.processor = tokenizer
        return
    transformer.processor.tokenizer = tokenizer  # type: ignore[union-attr]
    number = {old: new for new, old in enumerate(kept)}
    for name, value in list(vars(transformer.processor).items()):
        if name.endswith("_token_id") and isinstance(value, int):
            setattr(transformer.processor, name, number[value])
        elif name.endswith("_ids") and isinstance(value, list):  # kept by transformers 5.5
            setattr(transformer.processor, name, [number.get(old) for old in value])

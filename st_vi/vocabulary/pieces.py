"""Counting and removing the pieces of a fast tokenizer."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

_MARKS = ("▁", "##", "Ġ", "</w>")  # markers of word starts, continuations and ends
_BATCH = 1000
# Other vocabulary files of a saved tokenizer, which duplicate tokenizer.json.
_OTHER_FILES = ("sentencepiece.bpe.model", "spiece.model", "tokenizer.model", "vocab.json", "merges.txt", "vocab.txt")


def tokenizer_spec(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The content of `tokenizer.json` of a fast tokenizer: Unigram, BPE or WordPiece."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ValueError(
            f"the vocabulary of a {type(tokenizer).__name__} cannot be cut: it is not a fast tokenizer, one with a "
            "tokenizer.json"
        )
    spec: dict[str, Any] = json.loads(backend.to_str())
    if (kind := spec["model"].get("type")) not in ("Unigram", "BPE", "WordPiece"):
        raise ValueError(f"the vocabulary of a {kind} tokenizer cannot be cut: Unigram, BPE and WordPiece can")
    return spec


def count_pieces(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Counter[int]:
    """Number of occurrences of each piece in `texts`, by id."""
    counts: Counter[int] = Counter()
    for pieces in encode_pieces(tokenizer, texts):
        counts.update(pieces)
    return counts


def encode_pieces(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Iterable[list[int]]:
    """The ids of each text, without truncation and special tokens."""
    backend: Any = tokenizer.backend_tokenizer  # type: ignore[attr-defined]
    backend.no_truncation()
    backend.no_padding()
    for start in range(0, len(texts), _BATCH):
        for encoding in backend.encode_batch(list(texts[start : start + _BATCH]), add_special_tokens=False):
            yield encoding.ids


def always_kept(tokenizer: PreTrainedTokenizerBase, spec: Mapping[str, Any]) -> set[int]:
    """Ids of special and added tokens, the unknown piece, single letters and bytes, which can write any text."""
    vocabulary = pieces_of(spec)
    kept = {token["id"] for token in spec.get("added_tokens", ())} | set(tokenizer.all_special_ids)
    unknown = spec["model"].get("unk_id", vocabulary.get(spec["model"].get("unk_token") or ""))
    kept |= set() if unknown is None else {unknown}
    return kept | {number for piece, number in vocabulary.items() if is_letter(piece)}


def is_letter(piece: str) -> bool:
    """Whether a piece is a single letter, with or without a word marker, or a single byte.

    Example:
        >>> from st_vi.vocabulary.pieces import is_letter
        >>> [is_letter(piece) for piece in ("ệ", "▁ệ", "##a", "<0xE1>", "▁", "▁và")]
        [True, True, True, True, True, False]
    """
    for mark in _MARKS:
        piece = piece.removesuffix(mark) if mark.startswith("<") else piece.removeprefix(mark)
    return len(piece) <= 1 or (piece.startswith("<0x") and piece.endswith(">") and len(piece) == 6)


def pieces_of(spec: Mapping[str, Any]) -> dict[str, int]:
    """Piece to id in the model; does not include all added tokens."""
    vocabulary = spec["model"]["vocab"]
    if isinstance(vocabulary, Mapping):
        return dict(vocabulary)
    return {piece: number for number, (piece, _) in enumerate(vocabulary)}


def with_parts(spec: Mapping[str, Any], wanted: Iterable[int], room: int | None = None) -> set[int]:
    """The `wanted` pieces, and for BPE those that they are merged from; as many as fit into `room`.

    Merges are applied in order, independent of context, so the parts depend only on the piece.
    """
    if spec["model"]["type"] != "BPE":
        ordered = list(wanted)
        return set(ordered if room is None else ordered[:room])
    vocabulary = pieces_of(spec)
    names = {number: piece for piece, number in vocabulary.items()}
    ranks = {pair: rank for rank, pair in enumerate(_merges(spec))}
    mark = spec["model"].get("continuing_subword_prefix") or ""
    kept: set[int] = set()
    for number in wanted:
        parts = {vocabulary[part] for part in _parts(names.get(number, ""), ranks, mark) if part in vocabulary}
        if room is not None and len(kept | parts | {number}) > room:
            continue
        kept |= parts | {number}
    return kept


def _parts(piece: str, ranks: Mapping[tuple[str, str], int], mark: str) -> set[str]:
    """All intermediate pieces from the letters of a piece to the piece itself."""
    parts = [letter if not place else mark + letter for place, letter in enumerate(piece.removeprefix(mark))]
    seen = set(parts)
    while len(parts) > 1:
        pairs = [(ranks.get(pair, len(ranks)), place) for place, pair in enumerate(pairwise(parts))]
        rank, place = min(pairs)
        if rank == len(ranks):
            break
        parts[place : place + 2] = [parts[place] + parts[place + 1].removeprefix(mark)]
        seen.add(parts[place])
    return seen


def _merges(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [tuple(pair.split(" ", 1) if isinstance(pair, str) else pair) for pair in spec["model"]["merges"]]


def cut_spec(spec: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """The same tokenizer with only the pieces `kept`, which get the ids 0, 1, 2, … in this order."""
    number = {old: new for new, old in enumerate(kept)}
    cut: dict[str, Any] = json.loads(json.dumps(spec))
    model, vocabulary = cut["model"], pieces_of(spec)
    if isinstance(model["vocab"], list):
        model["vocab"] = [model["vocab"][old] for old in kept if old < len(model["vocab"])]
        model["unk_id"] = None if model.get("unk_id") is None else number[model["unk_id"]]
    else:
        model["vocab"] = {piece: number[old] for piece, old in vocabulary.items() if old in number}
    if "merges" in model:
        mark = model.get("continuing_subword_prefix") or ""
        merges = zip(model["merges"], _merges(spec), strict=True)
        there = model["vocab"]
        model["merges"] = [
            merge
            for merge, (left, right) in merges
            if left in there and right in there and left + right.removeprefix(mark) in there
        ]
    for token in cut.get("added_tokens", ()):
        token["id"] = number[token["id"]]
    _renumber(cut.get("post_processor"), number)
    if cut.get("padding"):
        cut["padding"]["pad_id"] = number[cut["padding"]["pad_id"]]
    cut["truncation"] = None
    return cut


def _renumber(part: Any, number: Mapping[int, int]) -> None:
    """Renumber the ids of special tokens in a post-processor: {"ids": […]}, or ["</s>", 2] for cls and sep."""
    if isinstance(part, dict):
        if isinstance(part.get("ids"), list):
            part["ids"] = [number[old] for old in part["ids"]]
        for name, value in part.items():
            if name in ("cls", "sep") and isinstance(value, list):
                part[name] = [value[0], number[value[1]]]
            else:
                _renumber(value, number)
    elif isinstance(part, list):
        for value in part:
            _renumber(value, number)


def tokenizer_with(tokenizer: PreTrainedTokenizerBase, spec: Mapping[str, Any], kept: Sequence[int]) -> Any:
    """A tokenizer of the same class and settings with another `spec`, as after saving and loading."""
    number = {old: new for new, old in enumerate(kept)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer.save_pretrained(folder)
        (folder / "tokenizer.json").write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")
        for other in (*_OTHER_FILES, "added_tokens.json"):
            (folder / other).unlink(missing_ok=True)
        file = folder / "tokenizer_config.json"
        settings = json.loads(file.read_text(encoding="utf-8"))
        if added := settings.get("added_tokens_decoder"):
            settings["added_tokens_decoder"] = {str(number[int(old)]): token for old, token in added.items()}
        file.write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")
        cut = type(tokenizer).from_pretrained(folder)
    cut.name_or_path = tokenizer.name_or_path
    return cut

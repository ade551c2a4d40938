"""The first stage: the text side learns the teacher's vectors, of texts however they are typed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from torch import Tensor

from st_vi.recipes.distil.draw import split_by_share
from st_vi.recipes.sight.base import Teacher
from st_vi.recipes.sight.half import save_whole
from st_vi.terms import InfoNCE, PairBatch, TeacherCosine, TeacherSimilarities
from st_vi.text import strip_diacritics
from st_vi.text.variants import vary

PAIRS_SHARE = 0.3
"""Of the batches, those of questions and their paragraphs."""
CHARACTERS = 160
"""Of texts longer than this a batch has fewer, as many as cost about the same."""
VARIED = 0.5
"""Share of the texts that are changed by `vary`, near half of them into texts without diacritics."""

_COSINE, _SIMILARITIES = TeacherCosine(weight=1.0), TeacherSimilarities(weight=1.0)
_PAIRS = InfoNCE(temperature=0.05, symmetric=True)


@dataclass(frozen=True)
class Texts:
    """Texts sorted by length, with the unit vectors (N, D) in half precision that they shall get."""

    texts: list[str]
    targets: Tensor

    def batch(self, size: int, random: Random, spread: int = 2000) -> list[int]:
        """Numbers of texts of about one length."""
        first = random.randrange(max(1, len(self.texts) - size))
        first = min(first, max(0, len(self.texts) - spread))
        return random.sample(range(first, min(len(self.texts), first + spread)), min(size, len(self.texts)))


@dataclass(frozen=True)
class Pairs:
    """Questions and paragraphs, one document after the other, with their vectors (N, D)."""

    questions: list[str]
    paragraphs: list[str]
    question_targets: Tensor
    paragraph_targets: Tensor

    def batch(self, size: int, random: Random) -> list[int]:
        """Numbers of pairs: runs of neighbours, which share a document and are hard for one another."""
        starts = random.sample(range(max(1, len(self.questions) - 3)), min(size // 4, len(self.questions) - 3))
        return sorted({start + i for start in starts for i in range(4)})


def draw_paragraphs(
    sets: Sequence[Dataset],
    shares: Sequence[float] | None,
    count: int,
    seed: int,
    lengths: tuple[int, int] = (560, 1250),
) -> list[str]:
    """Whole paragraphs with so many characters: what a question is asked of is longer than a sentence."""
    drawn: list[str] = []
    for rows, part in zip(sets, split_by_share(count, len(sets), shares), strict=True):
        found = sorted({text for text in rows["text"] if lengths[0] <= len(text) <= lengths[1]})
        drawn += Random(seed).sample(found, min(part, len(found)))
    return drawn


def kept_targets(file: Path, texts: Sequence[str], teacher: Teacher, log: Callable[[dict[str, Any]], None]) -> Tensor:
    """The teacher's vectors of these texts in half precision, computed once: `file` keeps them and what is done."""
    part, made = 4096, []
    for start in range(0, len(texts), part):
        piece = file.with_name(f"{file.stem}-{start}.pt")
        if not piece.exists():
            piece.parent.mkdir(parents=True, exist_ok=True)
            save_whole(teacher(texts[start : start + part]).half(), piece)
            log({"teacher": file.stem, "texts": min(len(texts), start + part)})
        made.append(torch.load(piece, weights_only=True))
    return torch.cat(made)


def tokenized(model: SentenceTransformer, texts: Iterable[str], length: int) -> dict[str, Tensor]:
    """What the model reads of texts without any prompt."""
    tokenizer: Any = model.tokenizer
    return dict(tokenizer(list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt"))


def vectors(model: SentenceTransformer, features: dict[str, Any]) -> Tensor:
    """Unit vectors (N, D) in fp32."""
    return F.normalize(model(features)["sentence_embedding"].float(), dim=1)


def text_step(
    model: SentenceTransformer,
    texts: Texts,
    pairs: Pairs | None,
    *,
    size: int = 128,
    length: int = 288,
    cosine: float = 4.0,
    similarities: float = 8.0,
) -> Callable[[Random], dict[str, Tensor]]:
    """The losses of one batch: of texts, or of questions and paragraphs, where InfoNCE comes in."""

    def of_texts(random: Random) -> dict[str, Tensor]:
        rows = texts.batch(size, random)
        rows = rows[: max(16, size * CHARACTERS // max(len(texts.texts[row]) for row in rows))]
        typed = [vary(texts.texts[row], random) if random.random() < VARIED else texts.texts[row] for row in rows]
        found = vectors(model, tokenized(model, typed, length))
        batch = PairBatch(found, found, teacher_vectors=texts.targets[rows].float()[None])
        return {
            "text_cosine": cosine * _COSINE(batch).mean(),
            "text_similarity": similarities * _SIMILARITIES(batch).mean(),
        }

    def of_pairs(random: Random, pairs: Pairs) -> dict[str, Tensor]:
        rows = pairs.batch(size // 3, random)
        asked = [_bare(pairs.questions[row], random) if random.random() < 0.4 else pairs.questions[row] for row in rows]
        questions = vectors(model, tokenized(model, asked, 64))
        paragraphs = vectors(model, tokenized(model, [pairs.paragraphs[row] for row in rows], length))
        targets = torch.stack([pairs.question_targets[rows], pairs.paragraph_targets[rows]]).float()
        ids = _ids([pairs.questions[row] for row in rows] + [pairs.paragraphs[row] for row in rows])
        batch = PairBatch(
            questions,
            paragraphs,
            teacher_vectors=targets,
            anchor_ids=ids[: len(rows)],
            candidate_ids=ids[len(rows) :],
        )
        return {
            "pair_cosine": cosine * _COSINE(batch).mean(),
            "pair_similarity": similarities * _SIMILARITIES(batch).mean(),
            "pair_nce": 0.5 * _PAIRS(batch).mean(),
        }

    def step(random: Random) -> dict[str, Tensor]:
        if pairs is not None and random.random() < PAIRS_SHARE:
            return of_pairs(random, pairs)
        return of_texts(random)

    return step


def _bare(text: str, random: Random) -> str:
    bare = strip_diacritics(text)
    return bare.lower() if random.random() < 0.4 else bare


def _ids(texts: Sequence[str]) -> Tensor:
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(text, len(numbers)) for text in texts])

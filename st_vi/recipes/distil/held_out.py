"""Results of a student on held-out rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer

from st_vi.data.documents import document_questions, document_texts
from st_vi.evaluation import NLISimilarityEvaluator
from st_vi.text import strip_diacritics


class Distilled:
    """Evaluates a student against its teacher and on retrieval and NLI, on held-out rows.

    Args:
        documents: Held-out paragraphs, as for `document_texts`.
        nli: Held-out rows with premise, hypothesis, label.
        count: Maximum number of texts and of queries.
        seed: Seed for sampling.
        teacher: Function that returns vectors (N, D) of clean texts; None skips this comparison.

    Returns:
        When called with a model: ``teacher_cosine`` and ``teacher_cosine_bare`` (student without diacritics), the mean
            cosine with the teacher's vectors; ``recall`` and ``recall_bare``, the share of queries whose paragraph
            ranks first; ``triplet_accuracy`` and ``nli_spearman``.

    Example:
        >>> from datasets import Dataset
        >>> from st_vi.recipes.distil.held_out import Distilled
        >>> measure = Distilled([Dataset.from_dict({"title": ["Chợ"], "text": ["Chợ họp từ sáng."]})])
        >>> measure.queries
        []
    """

    def __init__(
        self,
        documents: Sequence[Dataset],
        nli: Dataset | None = None,
        count: int = 400,
        seed: int = 0,
        teacher: Callable[[Sequence[str]], torch.Tensor] | None = None,
    ) -> None:
        each = max(1, count // len(documents))
        self.texts = [text for rows in documents for text in document_texts(rows, each, seed)]
        found = [document_questions(rows, each, seed, per_document=2) for rows in documents]
        self.queries = [query for rows in found if len(rows) for query in rows["anchor"]]
        paragraphs = [paragraph for rows in found if len(rows) for paragraph in rows["positive"]]
        self.paragraphs = list(dict.fromkeys(paragraphs))
        self.right = torch.tensor([self.paragraphs.index(paragraph) for paragraph in paragraphs])
        self.targets = teacher(self.texts) if teacher is not None and self.texts else None
        self.nli = nli and NLISimilarityEvaluator(nli["premise"], nli["hypothesis"], nli["label"])

    def __call__(self, model: SentenceTransformer) -> dict[str, float]:
        """Evaluate a model."""
        figures: dict[str, float] = {}
        if self.targets is not None:
            for name, texts in (("teacher_cosine", self.texts), ("teacher_cosine_bare", _bare(self.texts))):
                if (vectors := vectors_of(model, texts)).shape == self.targets.shape:
                    figures[name] = float((vectors * self.targets).sum(dim=1).mean())
        if self.queries:
            paragraphs = vectors_of(model, self.paragraphs)
            for name, texts in (("recall", self.queries), ("recall_bare", _bare(self.queries))):
                first = (vectors_of(model, texts) @ paragraphs.T).argmax(dim=1)
                figures[name] = float((first == self.right).float().mean())
        if self.nli:
            figures |= {name.removeprefix("_"): float(value) for name, value in self.nli(model).items()}
        return figures


def vectors_of(model: SentenceTransformer, texts: Sequence[str], prompt: str = "") -> torch.Tensor:
    """Vectors of texts (N, D) of length 1, in fp32."""
    found: Any = model.encode(list(texts), prompt=prompt or None, convert_to_tensor=True, show_progress_bar=False)
    return torch.nn.functional.normalize(found.float().cpu(), dim=1)


def _bare(texts: Sequence[str]) -> list[str]:
    return [strip_diacritics(text) for text in texts]

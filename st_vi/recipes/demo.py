"""The shipped encoder at work, and ViCLSR trained on top of it: nothing to download."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import semantic_search
from torch import Tensor
from transformers import set_seed

from st_vi.data import nli_to_triplets, sample_nli, sample_retrieval
from st_vi.evaluation import NLISimilarityEvaluator
from st_vi.hub import load
from st_vi.recipes.viclsr import train_viclsr

MODEL = "vi-mini"
SENTENCES = (
    "Chiều nay trời mưa to, nhiều tuyến phố ngập sâu.",
    "Nước ngập nhiều con đường sau trận mưa lớn chiều nay.",
    "Đội bóng đá nữ vừa giành huy chương vàng.",
)
QUESTIONS = (
    ("Đang bơi ở hồ mà trời gầm thì phải làm gì?", "pools_gyms-01"),
    ("Nửa đêm có người đau nặng cần qua sông Hậu Nhỏ thì đi bằng gì?", "trains_ferries-02"),
    ("Học thâu đêm ở thư viện, mệt quá thì chợp mắt ở đâu?", "libraries-02"),
    ("cong nhan Mai Linh mua ve thang het bao nhieu tien", "bus_routes-02"),
    ("trong xen cay gi de chong sau duc ngon cho ca", "plants-04"),
    ("Loài linh trưởng gì song ca buổi bình minh?", "animals-01"),
)
"""Questions with the passage of `sample_retrieval` that answers each. None was trained on; the fourth and fifth have
no diacritics, and the last shares no word with its answer."""


@dataclass(frozen=True)
class Answer:
    """A question, the passage that the model found for it, its cosine, and whether it is the right one."""

    question: str
    passage: str
    score: float
    right: bool


@dataclass(frozen=True)
class DemoResult:
    """What the demo found.

    Attributes:
        answers: One for each of `QUESTIONS`.
        searched: How many passages were searched.
        similarities: Cosines (3, 3) of `SENTENCES`.
        figures: Metric on held-out rows to its value before and after training, in [0, 1] or [-1, 1].
        trained: The folder of the trained model.
    """

    answers: list[Answer]
    searched: int
    similarities: Tensor
    figures: dict[str, tuple[float, float]]
    trained: Path


def run_demo(output_dir: str | Path, epochs: int = 2, seed: int = 0) -> DemoResult:
    """Search and compare with the shipped encoder, then train ViCLSR from it on the sample rows.

    Args:
        output_dir: The trained model goes into its folder "model".
        epochs: Passes over the training rows of `sample_nli`.
        seed: Seed for the order of the rows.
    """
    set_seed(seed)
    model = load(MODEL)
    passages = {row["passage_id"]: row["passage"] for row in sample_retrieval()}
    answers = _answers(model, passages)
    embeddings = model.encode(list(SENTENCES), convert_to_tensor=True)
    similarities = model.similarity(embeddings, embeddings).cpu()

    held_out = sample_nli("test")
    before = _figures(model, held_out)
    train_viclsr(
        model,
        nli_to_triplets(sample_nli("train")),
        Path(output_dir) / "model",
        num_train_epochs=epochs,
        per_device_train_batch_size=64,
        learning_rate=5e-5,
        save_strategy="no",
        logging_strategy="no",
        seed=seed,
        overwrite=True,  # of the demo before
    )
    after = _figures(load(Path(output_dir) / "model"), held_out)
    figures = {name: (value, after[name]) for name, value in before.items()}
    return DemoResult(answers, len(passages), similarities, figures, Path(output_dir) / "model")


def _answers(model: SentenceTransformer, passages: dict[str, str]) -> list[Answer]:
    names, texts = list(passages), list(passages.values())
    queries = model.encode([question for question, _ in QUESTIONS], convert_to_tensor=True)
    found = semantic_search(queries, model.encode(texts, convert_to_tensor=True), top_k=1)
    return [
        Answer(question, texts[best["corpus_id"]], best["score"], names[best["corpus_id"]] == right)
        for (question, right), (best,) in zip(QUESTIONS, found, strict=True)
    ]


def _figures(model: SentenceTransformer, rows: Dataset) -> dict[str, float]:
    metrics = NLISimilarityEvaluator(rows["premise"], rows["hypothesis"], rows["label"])(model)
    return {name.replace("_", " "): value for name, value in metrics.items()}

"""Demo of the included encoder and of ViCLSR training, without downloads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import semantic_search
from torch import Tensor
from transformers import set_seed

from st_vi.data import nli_to_triplets, sample_nli, sample_retrieval
from st_vi.evaluation import NLISimilarityEvaluator
from st_vi.hub import load
from st_vi.losses import SupConNLILoss
from st_vi.recipes.training.progress import Bar
from st_vi.recipes.viclsr import train_viclsr
from st_vi.text import strip_diacritics

MODEL = "vi-mini"
SENTENCES = (
    "Chiều nay trời mưa to, nhiều tuyến phố ngập sâu.",
    "Nước ngập nhiều con đường sau trận mưa lớn chiều nay.",
    "Đội bóng đá nữ vừa giành huy chương vàng.",
)
QUESTIONS = (
    ("Đang bơi ở hồ mà trời gầm thì phải làm gì?", "pools_gyms-01"),
    ("Học thâu đêm ở thư viện, mệt quá thì chợp mắt ở đâu?", "libraries-02"),
    ("Thú cưng lỡ cắn hàng xóm thì người nuôi chịu trách nhiệm gì?", "notices-02"),
    ("o ca phe hien uong bao nhieu ly thi duoc mot ly khong ton tien", "money_services-07"),
    ("uong thuoc ho may ngay khong bot thi phai di bac si", "medicine_leaflets-01"),
    ("App hỗ trợ trồng trọt", "app_help-04"),
)
"""Questions with the passage of `sample_retrieval` that answers each; all passages are held out. The fourth and fifth
have no diacritics, and the last shares no word with its answer. These are selected; `DemoResult.found` is over all."""


@dataclass(frozen=True)
class Answer:
    """A question, the passage that the model found, its cosine, and whether it is correct."""

    question: str
    passage: str
    score: float
    right: bool


@dataclass(frozen=True)
class DemoResult:
    """Results of the demo.

    Attributes:
        answers: One for each of `QUESTIONS`.
        searched: Number of passages searched.
        found: Share of all held-out questions whose passage ranks first, with and without diacritics.
        similarities: Cosines (3, 3) of `SENTENCES`.
        figures: Metrics on seen and held-out rows, before and after training, in [0, 1] or [-1, 1].
        trained: Folder of the trained model.
    """

    answers: list[Answer]
    searched: int
    found: tuple[float, float]
    similarities: Tensor
    figures: dict[str, tuple[float, float]]
    trained: Path


def run_demo(output_dir: str | Path, epochs: int = 2, seed: int = 0) -> DemoResult:
    """Search and compare with the included encoder, then train ViCLSR from it on the sample rows.

    The trained model is saved in the subfolder "model" of a `demo_folder`.
    """
    output_dir = demo_folder(output_dir)
    set_seed(seed)
    model = load(MODEL)
    passages = {row["passage_id"]: row["passage"] for row in sample_retrieval()}
    vectors = model.encode(list(passages.values()), convert_to_tensor=True)
    answers = _answers(model, passages, vectors, QUESTIONS)
    asked = [(row["question"], row["passage_id"]) for row in sample_retrieval("test")]
    bare = [(strip_diacritics(question), name) for question, name in asked]
    found = tuple(
        fmean(answer.right for answer in _answers(model, passages, vectors, pairs)) for pairs in (asked, bare)
    )
    embeddings = model.encode(list(SENTENCES), convert_to_tensor=True)
    similarities = model.similarity(embeddings, embeddings).cpu()

    seen, held_out = sample_nli("train"), sample_nli("test")
    before = _figures(model, seen=seen, held_out=held_out)
    train_viclsr(
        model,
        nli_to_triplets(seen),
        output_dir / "model",
        # The weight that was best on real rows, see docs/benchmarks.md.
        loss=SupConNLILoss(model, hard_negative_weight=3.0),
        num_train_epochs=epochs,
        per_device_train_batch_size=64,
        learning_rate=5e-5,
        save_strategy="no",
        logging_strategy="no",
        callbacks=[Bar()],
        seed=seed,
        overwrite=True,  # from an earlier demo
    )
    after = _figures(load(output_dir / "model"), seen=seen, held_out=held_out)
    figures = {name: (value, after[name]) for name, value in before.items()}
    return DemoResult(answers, len(passages), (found[0], found[1]), similarities, figures, output_dir / "model")


def demo_folder(folder: str | Path) -> Path:
    """The output folder of a demo, which replaces an earlier demo, and nothing else.

    Raises:
        ValueError: There is a model in it that no demo made.
    """
    folder = Path(folder)
    mark = folder / ".demo"
    if (folder / "model").exists() and not mark.exists():
        raise ValueError(f"{folder / 'model'} was not made by a demo, which would replace it: use another folder")
    folder.mkdir(parents=True, exist_ok=True)
    mark.touch()
    return folder


def _answers(
    model: SentenceTransformer, passages: dict[str, str], vectors: Tensor, asked: Sequence[tuple[str, str]]
) -> list[Answer]:
    names, texts = list(passages), list(passages.values())
    queries = model.encode([question for question, _ in asked], convert_to_tensor=True)
    best: list[dict[str, Any]] = [found[0] for found in semantic_search(queries, vectors, top_k=1)]
    return [
        Answer(question, texts[found["corpus_id"]], found["score"], names[found["corpus_id"]] == right)
        for (question, right), found in zip(asked, best, strict=True)
    ]


def _figures(model: SentenceTransformer, **parts: Dataset) -> dict[str, float]:
    figures: dict[str, float] = {}
    for part, rows in parts.items():
        metrics = NLISimilarityEvaluator(rows["premise"], rows["hypothesis"], rows["label"])(model)
        figures |= {f"{part.replace('_', '-')} {name.replace('_', ' ')}": value for name, value in metrics.items()}
    return figures

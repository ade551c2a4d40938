"""The whole of ViCLSR on the shipped samples, with nothing to download: small, but every part is the real one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset
from sentence_transformers import SentenceTransformer
from torch import Tensor
from transformers import set_seed

from st_vi.data import nli_to_triplets, sample_nli
from st_vi.evaluation import NLISimilarityEvaluator
from st_vi.hub import load
from st_vi.recipes.small_models import small_encoder
from st_vi.recipes.viclsr import build_viclsr, train_viclsr

SENTENCES = (
    "Chiều nay trời mưa to, nhiều tuyến phố ngập sâu.",
    "Nước ngập nhiều con đường sau trận mưa lớn chiều nay.",
    "Đội bóng đá nữ vừa giành huy chương vàng.",
)


@dataclass(frozen=True)
class DemoResult:
    """What the demo found.

    Attributes:
        figures: Name to value before and after training, in [0, 1] or [-1, 1].
        sentences: The sentences that the reloaded model encoded.
        similarities: Their cosines, (3, 3).
    """

    figures: dict[str, tuple[float, float]]
    sentences: Sequence[str]
    similarities: Tensor


def run_demo(output_dir: str | Path, epochs: int = 10, seed: int = 0) -> DemoResult:
    """Train a small encoder on the shipped NLI samples, save it in `output_dir`, reload it and encode.

    Args:
        output_dir: For the base encoder ("base") and the trained model ("model").
        epochs: How long to train.
        seed: Of the weights and the order of the rows.
    """
    set_seed(seed)
    output_dir = Path(output_dir)
    train, test = sample_nli("train"), sample_nli("test")
    small_encoder(train["premise"][:] + train["hypothesis"][:], output_dir / "base")
    model = build_viclsr(output_dir / "base")

    before = _figures(model, train, test)
    train_viclsr(
        model,
        nli_to_triplets(train),
        output_dir / "model",
        overwrite=True,  # of the demo before
        num_train_epochs=epochs,
        per_device_train_batch_size=64,
        learning_rate=1e-3,
        save_strategy="no",
        logging_strategy="no",
        seed=seed,
    )
    after = _figures(model, train, test)

    embeddings = load(output_dir / "model").encode(list(SENTENCES), convert_to_tensor=True)
    return DemoResult(
        figures={name: (value, after[name]) for name, value in before.items()},
        sentences=SENTENCES,
        similarities=model.similarity(embeddings, embeddings).cpu(),
    )


def _figures(model: SentenceTransformer, train: Dataset, test: Dataset) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name, rows in (("seen", train), ("held-out", test)):
        metrics = NLISimilarityEvaluator(rows["premise"], rows["hypothesis"], rows["label"])(model)
        figures |= {f"{name} {metric.replace('_', ' ')}": value for metric, value in metrics.items()}
    return figures

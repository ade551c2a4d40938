"""The whole of ViCLSR on the shipped samples, with nothing to download: small, but every part is the real one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel, set_seed

from st_vi.data import nli_to_triplets, sample_nli
from st_vi.evaluation import NLISimilarityEvaluator
from st_vi.hub import load
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


def small_encoder(texts: Sequence[str], folder: str | Path, width: int = 256, layers: int = 1) -> None:
    """Save an XLM-R of this width with random weights, and a BPE tokenizer trained on `texts`, in `folder`."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=4000, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    ends = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> </s> $B </s>", ends)
    roles = ("bos", "pad", "eos", "unk", "mask", "cls", "sep")
    names = dict(zip((f"{role}_token" for role in roles), [*special, "<s>", "</s>"], strict=True))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **names).save_pretrained(folder)
    config = XLMRobertaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * width,
        max_position_embeddings=130,
        initializer_range=0.05,
    )
    XLMRobertaModel(config).save_pretrained(folder)


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
    figures = {}
    for name, rows in (("seen", train), ("held-out", test)):
        metrics = NLISimilarityEvaluator(rows["premise"], rows["hypothesis"], rows["label"])(model)
        figures |= {f"{name} {metric.replace('_', ' ')}": value for metric, value in metrics.items()}
    return figures

"""Small text models for inspection: vi-mini trained further, offline in seconds, and cached."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from zlib import crc32

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import set_seed

from st_vi.checks import check_choice
from st_vi.data import nli_to_triplets, sample_nli
from st_vi.files.folders import unfinished
from st_vi.hub import load, pretrained
from st_vi.modules import AttentionPooling
from st_vi.recipes.training.progress import Bar
from st_vi.recipes.viclsr import train_viclsr
from st_vi.version import __version__

logger = logging.getLogger(__name__)

PoolingName = Literal["attention", "mean", "cls", "lasttoken"]
MODEL = "vi-mini"
PREFIX = "cặp câu: "


def cache_folder() -> Path:
    """The cache folder: the environment variable ``ST_VI_CACHE``, or ``~/.cache/st_vi``."""
    return Path(os.environ.get("ST_VI_CACHE", "~/.cache/st_vi")).expanduser()


def kept(name: str, make: Callable[[Path], None]) -> SentenceTransformer:
    """Load a model from the cache, and create it first if needed; `make` saves it in a folder.

    A model of another version of this package, or made from other weights of vi-mini, is not taken for it.
    """
    begun_from = crc32(Path(pretrained(MODEL), "model.safetensors").read_bytes())
    folder = cache_folder() / f"{name}-{__version__}-{begun_from:08x}"
    if not folder.is_dir():
        logger.info(f"training an example model once, for {folder}")
        with unfinished(folder) as new:
            make(new / "model")
            try:
                (new / "model").rename(folder)
            except OSError:  # another process was faster
                if not folder.is_dir():
                    raise
    return load(folder)


def example_text_model(pooling: PoolingName = "attention", trained: bool = True, seed: int = 0) -> SentenceTransformer:
    """The encoder of vi-mini under another pooling, trained with ViCLSR on a third of the sample premises.

    Only its last layer and the pooling learn, in one pass over 305 triplets: seconds on one core. That is enough for
    an attention vector that tells words from function words. All poolings see the same rows, and `mean` is vi-mini's
    own. The prompt "text_pair" is viPolyQwen's prefix; anchors were trained with it.

    Args:
        pooling: "attention", "mean", "cls" or "lasttoken".
        trained: False is the same model before its training; its attention vector is random and nearly a mean.
        seed: Seed for the attention vector, dropout and row order. Two seeds of one pooling show how much of a
            difference is noise.

    Returns:
        A model whose vectors have 384 numbers and length 1.

    Raises:
        ValueError: `pooling` is none of the four.

    Example:
        >>> from st_vi.recipes.examples.text_models import example_text_model
        >>> model = example_text_model()  # doctest: +SKIP
        >>> model.encode("Trời mưa to.", prompt_name="text_pair").shape  # doctest: +SKIP
        (384,)
    """
    check_choice("pooling", pooling, PoolingName)
    name = f"text-{pooling}-{'trained' if trained else 'untrained'}-{seed}"
    return kept(name, lambda folder: _make_text_model(folder, pooling, trained, seed))


def _make_text_model(folder: Path, pooling: PoolingName, trained: bool, seed: int) -> None:
    transformer: Any = load(MODEL)[0]
    transformer.max_seq_length = 256
    width = transformer.get_embedding_dimension()
    set_seed(seed)
    model = SentenceTransformer(
        modules=[
            transformer,
            AttentionPooling(width) if pooling == "attention" else Pooling(width, pooling),
            Normalize(),
        ],
        prompts={"text_pair": PREFIX},
        device="cpu",
    )
    if not trained:
        model.save(str(folder))
        return
    transformer.model.requires_grad_(False)
    transformer.model.encoder.layer[-1].requires_grad_(True)
    triplets = nli_to_triplets(sample_nli("train"))["triplets"]
    train_viclsr(
        model,
        triplets.select(range(0, len(triplets), 3)),  # seconds, not minutes
        folder,
        num_train_epochs=1,
        per_device_train_batch_size=32,
        learning_rate=1e-4,
        learning_rate_mapping={"attention_context_vector": 2e-2} if pooling == "attention" else {},
        prompts={"anchor": PREFIX},
        save_strategy="no",
        logging_strategy="no",
        callbacks=[Bar()],
        use_cpu=True,
        seed=seed,
    )

"""Small text models for inspection, trained offline in seconds and cached."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import set_seed

from st_vi.data import nli_to_triplets, sample_nli
from st_vi.hub import load
from st_vi.modules import AttentionPooling, MLPHead
from st_vi.recipes.examples.small_models import small_encoder
from st_vi.recipes.viclsr import train_viclsr
from st_vi.version import __version__

logger = logging.getLogger(__name__)

PoolingName = Literal["attention", "mean", "lasttoken"]
PREFIX = "cặp câu: "
WIDTH = 192


def cache_folder() -> Path:
    """The cache folder: the environment variable ``ST_VI_CACHE``, or ``~/.cache/st_vi``."""
    return Path(os.environ.get("ST_VI_CACHE", "~/.cache/st_vi")).expanduser()


def kept(name: str, make: Callable[[Path], None]) -> SentenceTransformer:
    """Load a model from the cache, and create it first if needed.

    Args:
        name: Name of the folder; the version of st_vi is appended.
        make: Function that saves the model in a given folder. Partially written folders are not kept.
    """
    folder = cache_folder() / f"{name}-{__version__}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        logger.info(f"training a small model once, for {folder}")
        with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
            make(Path(unfinished) / "model")
            try:
                (Path(unfinished) / "model").rename(folder)
            except OSError:  # another process was faster
                if not folder.is_dir():
                    raise
    return load(folder)


def example_text_model(
    pooling: PoolingName = "attention", trained: bool = True, epochs: int = 10
) -> SentenceTransformer:
    """A small text model with the architecture of viPolyQwen (pooling, two-layer head), trained on the sample NLI set.

    Anchors were trained with the prompt "text_pair". All poolings start from the same encoder and are trained on the
    same rows. The model is too small to be useful, but it shows how a model works.

    Args:
        pooling: "attention", "mean" or "lasttoken".
        trained: False returns the model before training.
        epochs: Epochs over the training rows of `sample_nli`.

    Raises:
        ValueError: `pooling` is unknown.

    Example:
        >>> from st_vi.recipes.examples.text_models import example_text_model
        >>> model = example_text_model()  # doctest: +SKIP
        >>> model.encode("Trời mưa to.", prompt_name="text_pair").shape  # doctest: +SKIP
        (192,)
    """
    if pooling not in get_args(PoolingName):
        raise ValueError(f"pooling must be one of {get_args(PoolingName)}, got {pooling!r}")
    state = f"{epochs}-epochs" if trained else "untrained"
    return kept(f"text-{pooling}-{state}", lambda folder: _make_text_model(folder, pooling, epochs if trained else 0))


def _make_text_model(folder: Path, pooling: PoolingName, epochs: int) -> None:
    rows = sample_nli("train").select(range(900))  # 300 premises: seconds, not minutes
    set_seed(0)
    small_encoder([*rows["premise"], *rows["hypothesis"], PREFIX], folder / "base", width=WIDTH, layers=2)
    set_seed(1)
    model = SentenceTransformer(
        modules=[
            Transformer(str(folder / "base")),
            AttentionPooling(WIDTH) if pooling == "attention" else Pooling(WIDTH, pooling),
            MLPHead(WIDTH, WIDTH, num_layers=2, activation="gelu", layer_norm=True),
            Normalize(),
        ],
        prompts={"text_pair": PREFIX},
        device="cpu",
    )
    shutil.rmtree(folder / "base")
    if not epochs:
        model.save(str(folder))
        return
    train_viclsr(
        model,
        nli_to_triplets(rows),
        folder,
        num_train_epochs=epochs,
        per_device_train_batch_size=64,
        learning_rate=1e-3,
        prompts={"anchor": PREFIX},
        save_strategy="no",
        logging_strategy="no",
        use_cpu=True,
    )

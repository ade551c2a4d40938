"""ViCLSR (arXiv 2603.21084): a Vietnamese sentence encoder from natural-language inference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import AutoTokenizer, TrainerCallback

from st_vi.data.accepted import TrainRows
from st_vi.data.triplets import triplets_to_train_on
from st_vi.losses import SupConNLILoss
from st_vi.modules import MLPHead, WordSegmentedTransformer
from st_vi.modules.mlp_head import Activation, Init
from st_vi.modules.model_card import TAGS, ModelCard
from st_vi.modules.positions import usable_positions
from st_vi.modules.whole_backbone import whole_backbone
from st_vi.recipes.base_models import check_base
from st_vi.recipes.training.arguments import common_arguments
from st_vi.recipes.training.run import Evaluators, Loss, train


def build_viclsr(
    base_model: str | Path,
    activation: Activation = "tanh",
    max_seq_length: int = 256,
    pooling: Literal["cls", "mean"] = "cls",
    segment_words: bool | None = None,
    head_init: Init = "random",
    **transformer_kwargs: Any,
) -> SentenceTransformer:
    """An untrained ViCLSR: encoder, vector of the first token, linear head, unit length.

    The head is a stock `Dense`, the same function as `MLPHead` with one layer. Without word segmentation all modules
    are stock ones, and the saved model loads with ``SentenceTransformer(path)``.

    Args:
        base_model: Any encoder on the Hub or in a folder, such as "FacebookAI/xlm-roberta-large" (the paper's)
            or "vinai/phobert-base-v2".
        activation: Of the head. *Inferred*: "tanh", as in supervised SimCSE; the released weights are applied
            with "identity".
        max_seq_length: In tokens, as the model card's 256; less where the encoder has fewer positions (PhoBERT
            has 256).
        pooling: "cls" as in the paper, or "mean", which kept retrieval higher in `docs/benchmarks.md`.
        segment_words: Join the syllables of each word first, as PhoBERT needs; None does so for PhoBERT only.
        head_init: "random", as SimCSE starts; or "identity" for an encoder whose pooled vectors are good already, which
            a random head mixes up.
        **transformer_kwargs: For the stock `Transformer`, such as ``model_kwargs={"dtype": "bfloat16"}``.

    Returns:
        A `SentenceTransformer` whose embeddings have the width of the encoder and length 1.

    Raises:
        ValueError: The activation or the pooling is not known; weights of the encoder are missing; or `base_model`
            is a trained model with a head, or an adapter, which would be lost: load it to train it further.
        ImportError: Words are to be segmented and the extra "vi" is not installed.

    Example:
        >>> from st_vi import build_viclsr
        >>> model = build_viclsr("FacebookAI/xlm-roberta-large")  # doctest: +SKIP
        >>> model.encode("Hà Nội là thủ đô của Việt Nam.").shape  # doctest: +SKIP
        (1024,)
    """
    base_model = str(base_model)
    check_base(base_model, "build_viclsr", pooling, transformer_kwargs)
    if segment_words is None:
        segment_words = "phobert" in type(AutoTokenizer.from_pretrained(base_model)).__name__.lower()
    with whole_backbone():
        transformer = (WordSegmentedTransformer if segment_words else Transformer)(base_model, **transformer_kwargs)
    transformer.max_seq_length = min(max_seq_length, usable_positions(transformer.config))
    width = transformer.get_embedding_dimension()
    head = MLPHead(width, width, activation=activation, init=head_init).to_stock()
    return SentenceTransformer(
        modules=[transformer, Pooling(width, pooling), *head, Normalize()],
        model_card_data=ModelCard(language="vi", tags=[*TAGS, "viclsr"]),
    )


def viclsr_training_arguments(output_dir: str | Path, **arguments: Any) -> SentenceTransformerTrainingArguments:
    """Stock training arguments with the defaults of supervised SimCSE on a large encoder.

    *Inferred*: the paper publishes neither batch size nor learning rate nor epochs; these are SimCSE's
    (arXiv 2104.08821, Appendix A): 3 epochs, batch 512, 1e-5. A small encoder wants more, such as 1e-4.

    Args:
        output_dir: Where checkpoints go.
        **arguments: Any stock argument, over the defaults.

    Example:
        >>> from st_vi.recipes import viclsr_training_arguments
        >>> viclsr_training_arguments("outputs", num_train_epochs=1).learning_rate
        1e-05
    """
    defaults = {"num_train_epochs": 3, "per_device_train_batch_size": 512, "learning_rate": 1e-5}
    return common_arguments(output_dir, **defaults | arguments)


def train_viclsr(
    model: SentenceTransformer,
    train_dataset: TrainRows,
    output_dir: str | Path,
    evaluator: Evaluators | None = None,
    loss: Loss | None = None,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
    **arguments: Any,
) -> SentenceTransformerTrainer:
    """Train `model` in place with the stock trainer, and save it in `output_dir`.

    With an evaluator, it is run after every epoch, or as often as checkpoints are saved, and the model ends with the
    weights of the best one.

    Args:
        model: From `build_viclsr`, or any `SentenceTransformer`.
        train_dataset: Anchor, positive and negatives by these names, such as `nli_to_triplets` gives; other columns
            are left out, with a warning (`check_triplets`). A list of dicts or a pandas DataFrame will do, several of
            these by name, or a stream (`IterableDataset`), which needs `max_steps`, and whose rows are checked as they
            come.
        output_dir: Where checkpoints and the trained model go.
        evaluator: Such as `NLISimilarityEvaluator` on held-out rows, or a list of them: the last one with a primary
            metric picks the best weights.
        loss: Of this model, or as the stock trainer takes it; None is ``SupConNLILoss(model)``.
        resume: Go on from the last checkpoint in `output_dir`, where there is one. It must be of the same run: of the
            same rows, base, loss and arguments. What does not change the weights, such as logging, may change.
        overwrite: Replace the model and the checkpoints that a training left in `output_dir`.
        callbacks: For the trainer.
        **arguments: As for `viclsr_training_arguments`.

    Returns:
        The trainer, with its log in ``trainer.state.log_history``.

    Raises:
        ValueError: Before any step, if a row cannot be trained on (`check_triplets`).
    """
    return train(
        model,
        triplets_to_train_on(train_dataset),
        output_dir,
        loss or SupConNLILoss(model),
        viclsr_training_arguments,
        arguments,
        evaluator=evaluator,
        resume=resume,
        overwrite=overwrite,
        callbacks=callbacks,
    )

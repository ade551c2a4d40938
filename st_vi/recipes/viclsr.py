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

from st_vi.checks import check_model
from st_vi.data.accepted import TrainRows
from st_vi.data.triplets import triplets_to_train_on
from st_vi.hub import included_or_same
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
    pooling: Literal["cls", "mean"] | None = None,
    segment_words: bool | None = None,
    head_init: Init = "random",
    **transformer_kwargs: Any,
) -> SentenceTransformer:
    """Build an untrained ViCLSR: encoder, pooling, linear head, L2 normalisation.

    The head is a stock `Dense`, which computes what `MLPHead` with one layer does. Without word segmentation, all
    modules are stock and the saved model loads with ``SentenceTransformer(path)``.

    Args:
        base_model: Any encoder on the Hub or in a folder, such as "FacebookAI/xlm-roberta-large" (the paper's)
            or "vinai/phobert-base-v2"; or "vi-mini".
        activation: Activation of the head. *Inferred*: "tanh", as in supervised SimCSE; the released weights use
            "identity".
        max_seq_length: In tokens; 256 as in the model card, less if the encoder has fewer positions.
        pooling: "cls" as in the paper, or "mean", which kept retrieval higher in `docs/benchmarks.md`. None takes the
            pooling with which the base model was trained, and "cls" if it has none.
        segment_words: Join the syllables of each word, as PhoBERT needs; None does so for PhoBERT only.
        head_init: "random" as in SimCSE, or "identity" for an encoder whose pooled vectors are good already.
        **transformer_kwargs: For the stock `Transformer`, such as ``model_kwargs={"dtype": "bfloat16"}``.

    Returns:
        A `SentenceTransformer` whose embeddings have the width of the encoder and length 1.

    Raises:
        ValueError: The activation or the pooling is unknown; `max_seq_length` is below 3; weights of the encoder are
            missing; or `base_model` is a trained model with a head or an adapter, which would be lost: load it to
            continue training.
        FileNotFoundError: `base_model` is a path that is not there.
        ImportError: Word segmentation needs the extra "vi".

    Example:
        >>> from st_vi import build_viclsr
        >>> model = build_viclsr("FacebookAI/xlm-roberta-large")  # doctest: +SKIP
        >>> model.encode("Hà Nội là thủ đô của Việt Nam.").shape  # doctest: +SKIP
        (1024,)
    """
    if not isinstance(max_seq_length, int) or max_seq_length < 3:
        raise ValueError(f"max_seq_length must be 3 or more tokens, got {max_seq_length!r}")
    base_model = included_or_same(base_model)
    pooling_of_base = check_base(base_model, "build_viclsr", pooling, transformer_kwargs)
    if segment_words is None:
        segment_words = "phobert" in type(AutoTokenizer.from_pretrained(base_model)).__name__.lower()
    with whole_backbone():
        transformer = (WordSegmentedTransformer if segment_words else Transformer)(base_model, **transformer_kwargs)
    transformer.max_seq_length = min(max_seq_length, usable_positions(transformer.config))
    width = transformer.get_embedding_dimension()
    head = MLPHead(width, width, activation=activation, init=head_init).to_stock()
    return SentenceTransformer(
        modules=[transformer, Pooling(width, pooling or pooling_of_base or "cls"), *head, Normalize()],
        model_card_data=ModelCard(language="vi", tags=[*TAGS, "viclsr"]),
    )


def viclsr_training_arguments(output_dir: str | Path, **arguments: Any) -> SentenceTransformerTrainingArguments:
    """Stock training arguments with the defaults of supervised SimCSE for a large encoder.

    *Inferred*: the paper gives no batch size, learning rate or number of epochs; these are SimCSE's
    (arXiv 2104.08821, Appendix A): 512, 1e-5 and 3. Small encoders need a higher learning rate, such as 1e-4.

    Args:
        output_dir: Folder for checkpoints.
        **arguments: Stock arguments; they override the defaults.

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
    """Train `model` in place with the stock trainer and save it in `output_dir`.

    An evaluator runs after every epoch, or whenever a checkpoint is saved; the best weights are restored at the end.

    Args:
        model: From `build_viclsr`, or any `SentenceTransformer`.
        train_dataset: Rows with the columns anchor, positive and negative(s), as from `nli_to_triplets`; other columns
            are dropped with a warning (`check_triplets`). A `Dataset`, a list of dicts, a pandas DataFrame, several of
            these by name, or a stream (`IterableDataset`, with `max_steps`), whose rows are checked as they arrive.
        output_dir: Folder for checkpoints and the trained model.
        evaluator: For example `NLISimilarityEvaluator` on held-out rows, or a list of evaluators, of which the last one
            with a primary metric chooses the best weights.
        loss: A loss made with `model`, or anything the stock trainer takes; None for ``SupConNLILoss(model)``.
        resume: Continue from the last checkpoint in `output_dir`, if there is one. Rows, base, loss and arguments must
            be the same; logging and the like may change.
        overwrite: Replace the model and checkpoints that an earlier run left in `output_dir`.
        callbacks: Callbacks for the trainer.
        **arguments: As for `viclsr_training_arguments`.

    Returns:
        The trainer; its log is ``trainer.state.log_history``.

    Raises:
        ValueError: Before the first step: a row cannot be used (`check_triplets`), `loss` was made with another model,
            or `output_dir` is a file, has an earlier run and neither `resume` nor `overwrite` is set, or has another
            run and `resume` is set.
        OSError: The disk is full; names the checkpoint to resume from.
    """
    check_model(model)
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

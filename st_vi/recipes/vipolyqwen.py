"""viPolyQwen: one vector for text, image and both, from Qwen2-VL, trained by the Dynamic Loss Equilibrium."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.modules import Module, Normalize
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import AutoConfig, TrainerCallback

from st_vi.data import MixedTaskCollator, split_by_task
from st_vi.data.accepted import TrainRows, as_datasets, as_train_rows
from st_vi.data.collator import PrefixSide, ScoreCollator
from st_vi.data.row_values import score_of
from st_vi.data.task_rows import ModelInputs
from st_vi.evaluation import TaskRetrievalEvaluator
from st_vi.losses import DLELoss, DLEMonitor, InfoNCEWarmUp
from st_vi.losses.own_model import own_losses
from st_vi.modules import AttentionPooling, MLPHead, Qwen2VLTransformer
from st_vi.modules.model_card import TAGS, ModelCard
from st_vi.recipes.base_models import check_base
from st_vi.recipes.lora import add_lora, lora_config
from st_vi.recipes.row_checks import check_evaluator, checked_rows, num_positives, tasks_of
from st_vi.recipes.training.run import Evaluators, Loss, train
from st_vi.text import comparison_key

if TYPE_CHECKING:
    from peft import LoraConfig

PoolingName = Literal["attention", "mean", "lasttoken"]
HeadName = Literal["mlp", "linear"]


def build_vipolyqwen(
    base_model: str | Path,
    embedding_dimension: int = 1024,
    pooling: PoolingName = "attention",
    head: HeadName | None = "mlp",
    lora: LoraConfig | bool | None = None,
    **transformer_kwargs: Any,
) -> SentenceTransformer:
    """An untrained viPolyQwen: Qwen2-VL, attention pooling, two-layer head, unit length.

    Args:
        base_model: A Qwen2-VL on the hub or in a folder; the paper's is "Qwen/Qwen2-VL-2B-Instruct".
        embedding_dimension: Size of the embeddings. Without a head it is the backbone's own (1536 for 2B; the
            paper says 2048), and this is not used.
        pooling: "attention" as in the paper, or stock "mean" or "lasttoken" to compare with.
        head: "mlp", LN(W₂·GELU(LN(W₁c))) as in the paper; "linear"; or None.
        lora: True freezes the backbone and trains LoRA on its language model (`st_vi.recipes.lora.lora_config`) with
            the prefixes' embeddings; or a config of your own. It is an argument of the model, not of the training:
            it decides which weights there are, and a resumed training must build them alike. Pooling and head train
            in full. Saved are these and the adapter, which needs `base_model` in the same place to be loaded again;
            `st_vi.recipes.lora.merge_lora` makes a whole model of them. A loaded adapter is frozen, as in PEFT:
            ``model.set_adapter("default")`` lets it train on.
        **transformer_kwargs: For `Qwen2VLTransformer`, such as `max_pixels` or `template`.

    Returns:
        A `SentenceTransformer` with a prompt for each task: ``encode(..., prompt_name="ocr")`` steers, no prompt
        gives the general embedding.

    Raises:
        ValueError: `pooling` or `head` is none of the above; the base model is no Qwen2-VL, is a trained viPolyQwen,
            whose pooling vector, head or prefixes would be lost (load it to train it further), or has no embedding
            rows for the prefixes and LoRA is asked of it.
        ImportError: The extra "vision" is not installed, or "lora" for LoRA.

    Example:
        >>> from st_vi import build_vipolyqwen
        >>> model = build_vipolyqwen("Qwen/Qwen2-VL-2B-Instruct")  # doctest: +SKIP
        >>> model.encode({"image": "bien_bao.jpg", "text": "Biển báo này nghĩa là gì?"}).shape  # doctest: +SKIP
        (1024,)
    """
    if pooling not in get_args(PoolingName):
        raise ValueError(f"pooling must be one of {get_args(PoolingName)}, got {pooling!r}")
    if head not in (*get_args(HeadName), None):
        raise ValueError(f"head must be one of {get_args(HeadName)} or None, got {head!r}")
    backbone = _backbone(str(base_model), lora, pooling, transformer_kwargs)
    width = backbone.get_embedding_dimension()
    modules: list[Module] = [backbone, AttentionPooling(width) if pooling == "attention" else Pooling(width, pooling)]
    if head == "mlp":
        modules.append(MLPHead(width, embedding_dimension, num_layers=2, activation="gelu", layer_norm=True))
    elif head == "linear":
        modules.append(MLPHead(width, embedding_dimension, num_layers=1, activation="identity"))
    # Stock brings the modules after the backbone to its dtype. The whole is not cast: the backbone keeps its rotary
    # frequencies in fp32, and rounded they would differ from those of the model when it is loaded again.
    return SentenceTransformer(
        modules=[*modules, Normalize()],
        prompts=backbone.default_prompts(),
        model_card_data=ModelCard(language="vi", tags=[*TAGS, "vipolyqwen"]),
    )


def _backbone(
    base_model: str, lora: LoraConfig | bool | None, pooling: PoolingName, kwargs: dict[str, Any]
) -> Qwen2VLTransformer:
    config = lora_config() if lora is True else lora  # before gigabytes are read: PEFT may be missing
    check_base(base_model, "build_vipolyqwen", pooling, kwargs)
    backbone = Qwen2VLTransformer(base_model, **kwargs)
    if config:
        # Read again: the backbone's own configuration grows with its embeddings.
        base = AutoConfig.from_pretrained(base_model, **(kwargs.get("config_kwargs") or {}))
        add_lora(backbone, config, base.get_text_config().vocab_size)
    return backbone


def vipolyqwen_training_arguments(output_dir: str | Path, **arguments: Any) -> SentenceTransformerTrainingArguments:
    """Stock training arguments with the paper's settings (Section 5.2).

    3 epochs of batches of 12 with 10 accumulated; AdamW with 2e-5, and 2e-6 for the vision tower; cosine schedule
    with 10 % warm-up; weight decay 0.01; gradients clipped at 1.0; bf16 where the GPU has it. Accumulation adds no
    negatives.

    Args:
        output_dir: Where checkpoints go.
        **arguments: Any stock argument, over the defaults.

    Example:
        >>> from st_vi.recipes import vipolyqwen_training_arguments
        >>> vipolyqwen_training_arguments("outputs").learning_rate_mapping
        {'visual\\\\.': 2e-06}
    """
    defaults: dict[str, Any] = {
        "num_train_epochs": 3,
        "per_device_train_batch_size": 12,
        "gradient_accumulation_steps": 10,
        "learning_rate": 2e-5,
        "learning_rate_mapping": {r"visual\.": 2e-6},
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "save_total_limit": 2,
        "logging_steps": 0.05,
        "report_to": "none",
        "dataloader_pin_memory": torch.accelerator.is_available(),  # a warning where there is none
        "bf16": torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
    }
    return SentenceTransformerTrainingArguments(output_dir=str(output_dir), **defaults | arguments)


def train_vipolyqwen(
    model: SentenceTransformer,
    train_dataset: TrainRows,
    output_dir: str | Path,
    evaluator: Evaluators | None = None,
    loss: Loss | None = None,
    prefix_side: PrefixSide = "anchor",
    prefix_dropout: float = 0.0,
    info_nce_warm_up: float = 0.0,
    bad_image: Literal["error", "skip"] = "error",
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
    **arguments: Any,
) -> SentenceTransformerTrainer:
    """Train `model` in place on rows of mixed tasks with the stock trainer, and save it in `output_dir`.

    Args:
        model: From `build_vipolyqwen`, or any model that takes what the rows hold.
        train_dataset: Columns anchor, positive, task, and where there are any score, anchor_image, positive_image.
            Of one data set, every batch mixes tasks; of a `DatasetDict`, a batch comes from one data set alone, so
            that its rows all are negatives for one another where they are of one task. How often each is drawn is
            the stock ``multi_dataset_batch_sampler``: in proportion to its rows, or in turn. (The paper gives no
            proportions.) For a `Dataset`, a list of dicts or a pandas DataFrame will do; of a stream
            (`IterableDataset`), which needs `max_steps`, rows are checked as they come.
        output_dir: Where checkpoints and the trained model go.
        evaluator: Run after every epoch, or as often as checkpoints are saved; the model ends with the weights of the
            best one. Of a list, the last one with a primary metric picks them.
        loss: Of this model; None is a `DLELoss` with the paper's tasks, and as many positives as there are columns.
            Stock losses get the scores as labels, where all rows have one, and else none.
        prefix_side: See `MixedTaskCollator`.
        prefix_dropout: See `MixedTaskCollator`.
        info_nce_warm_up: Share of the steps, from the first, with InfoNCE alone; see `InfoNCEWarmUp`. Not the
            paper's; a model with random weights needs it.
        bad_image: A row with an unreadable image is an "error", or is left out ("skip"), counted in a warning.
        resume: Go on from the last checkpoint in `output_dir`, where there is one. It must be of the same run: of the
            same rows, base, loss and arguments. What does not change the weights, such as logging, may change.
        overwrite: Replace the model and the checkpoints that a training left in `output_dir`.
        callbacks: For the trainer, beside a `DLEMonitor`.
        **arguments: As for `vipolyqwen_training_arguments`.

    Returns:
        The trainer, with its log in ``trainer.state.log_history``.

    Raises:
        ValueError: Before any step, if a row cannot be trained on (`check_task_rows`), the columns are not those that
            the loss and its terms need, or there are pictures, more of them than `model` can read.
    """
    rows = as_train_rows(train_dataset)
    loss = loss or DLELoss(model, num_positives=num_positives(rows) or 1)
    own = own_losses(loss, DLELoss)
    tasks, rows = tasks_of(own), checked_rows(rows, own, model, bad_image)
    check_evaluator(model, evaluator)
    if not any("visual." in name for name, _ in model.named_parameters()):
        arguments = {"learning_rate_mapping": {}} | arguments  # a text model has no tower to go slower with
    if info_nce_warm_up and not own:
        raise ValueError("info_nce_warm_up is for a DLELoss")
    warm_up = [InfoNCEWarmUp(part, info_nce_warm_up) for part in own] if info_nce_warm_up else []
    collator = MixedTaskCollator if own else ScoreCollator
    return train(
        model,
        rows,
        output_dir,
        loss,
        vipolyqwen_training_arguments,
        arguments,
        evaluator=evaluator,
        data_collator=collator(model.preprocess, tasks=tasks, prefix_side=prefix_side, prefix_dropout=prefix_dropout),
        resume=resume,
        overwrite=overwrite,
        callbacks=[DLEMonitor(*own), *warm_up, *callbacks],
        settings={
            "prefix_side": prefix_side,
            "prefix_dropout": prefix_dropout,
            "info_nce_warm_up": info_nce_warm_up,
        },
    )


def vipolyqwen_evaluator(rows: TrainRows, **settings: Any) -> TaskRetrievalEvaluator:
    """Retrieval and scores on held-out rows, with the prompt of their task, one corpus for each task.

    Args:
        rows: As for `train_vipolyqwen`, perhaps with a column `options` (the right answer may be among them). Of a
            `DatasetDict`, every data set is a corpus of its own, under its name. Pictures are opened a batch at a time.
        **settings: For `TaskRetrievalEvaluator`.

    Raises:
        ValueError: A data set of several tasks in a `DatasetDict`, or a row without text and picture, or with one that
            cannot be read.

    Example:
        >>> from st_vi.data.generated.rows import generated_rows
        >>> from st_vi.recipes.vipolyqwen import vipolyqwen_evaluator
        >>> evaluator = vipolyqwen_evaluator(generated_rows("test", 2, seed=0, kinds=["words", "questions"]))
        >>> evaluator.prompt_names
        {'words': 'ocr', 'questions': 'vqa_single'}
    """
    rows = as_datasets(rows)
    if isinstance(rows, Dataset):
        rows = split_by_task(rows)
    prompts, tasks, scores, options = {}, [], [], []
    for name, part in rows.items():
        if len(of_part := set(part["task"])) > 1:
            raise ValueError(f"data set {name!r} has rows of several tasks, {sorted(of_part)}: one prompt each")
        (prompts[name],) = of_part
        tasks += [name] * len(part)
        values = part.select_columns([c for c in ("positive", "score", "options") if c in part.column_names]).to_list()
        scores += [score_of(row, number) for number, row in enumerate(values)]
        options += [
            [one for one in row.get("options") or () if comparison_key(one) != comparison_key(row["positive"] or "")]
            for row in values
        ]
    anchors, positives = (ModelInputs(rows, column) for column in ("anchor", "positive"))
    return TaskRetrievalEvaluator(anchors, positives, tasks, scores, options, prompt_names=prompts, **settings)

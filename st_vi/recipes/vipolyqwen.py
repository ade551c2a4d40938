"""viPolyQwen: embeddings of text, images and both from Qwen2-VL, trained with the Dynamic Loss Equilibrium."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from datasets import Dataset, DatasetDict, IterableDataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.modules import Module, Normalize
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import AutoConfig, TrainerCallback

from st_vi.checks import check_choice, check_model
from st_vi.data import MixedTaskCollator, split_by_task
from st_vi.data.accepted import TrainRows, as_datasets, as_train_rows
from st_vi.data.collator import PrefixSide, ScoreCollator
from st_vi.data.task_rows import ModelInputs, check_options, undecoded
from st_vi.data.values import score_of, text_of
from st_vi.evaluation import TaskRetrievalEvaluator
from st_vi.hub import included_or_same
from st_vi.losses import Balance, CachedDLELoss, DLELoss, DLEMonitor, InfoNCEWarmUp, LossKeeper
from st_vi.losses.balance import BalanceName
from st_vi.losses.keeper import RATE, own_parameters
from st_vi.losses.own_model import made_with, own_losses
from st_vi.modules import AttentionPooling, MLPHead, Qwen2VLTransformer
from st_vi.modules.model_card import TAGS, ModelCard
from st_vi.recipes.base_models import check_base
from st_vi.recipes.lora import add_lora, lora_config
from st_vi.recipes.row_checks import check_evaluator, checked_rows, num_positives, tasks_of
from st_vi.recipes.training.arguments import common_arguments
from st_vi.recipes.training.run import Evaluators, Loss, train
from st_vi.tasks import VIDEO_TASK, VIPOLYQWEN_TASKS
from st_vi.text import comparison_key

if TYPE_CHECKING:
    from peft import LoraConfig

PoolingName = Literal["attention", "mean", "lasttoken"]
HeadName = Literal["mlp", "linear"]
_RATES = {r"visual\.": 2e-6}


def build_vipolyqwen(
    base_model: str | Path,
    embedding_dimension: int = 1024,
    pooling: PoolingName = "attention",
    head: HeadName | None = "mlp",
    lora: LoraConfig | bool | None = None,
    **transformer_kwargs: Any,
) -> SentenceTransformer:
    """Build an untrained viPolyQwen: Qwen2-VL, attention pooling, two-layer head, normalisation.

    Args:
        base_model: A Qwen2-VL on the Hub or in a folder; the paper uses "Qwen/Qwen2-VL-2B-Instruct".
        embedding_dimension: Dimension of the embeddings. Ignored without a head, where it is the hidden size of the
            backbone (1536 for 2B; the paper says 2048).
        pooling: "attention" as in the paper, or the stock "mean" or "lasttoken".
        head: "mlp", LN(W₂·GELU(LN(W₁c))), as in the paper; "linear"; or None.
        lora: True freezes the backbone and trains LoRA on its language model (`st_vi.recipes.lora_config`),
            together with the embeddings of the prefixes; or pass a config. Pooling and head are fully trained. To
            resume training, build the model with the same setting. Only the adapter, pooling and head are saved:
            loading needs `base_model` in the same place; `st_vi.recipes.merge_lora` creates a complete model. As
            in PEFT, a loaded adapter is frozen: call ``model.set_adapter("default")`` to train it.
        **transformer_kwargs: Arguments of `Qwen2VLTransformer`, such as `max_pixels` or `template`.

    Returns:
        A `SentenceTransformer` with a prompt for each task, as in ``encode(..., prompt_name="ocr")``; without a prompt,
        `encode` returns the general embedding.

    Raises:
        ValueError: `pooling` or `head` is unknown; the base model is not a Qwen2-VL, is a trained viPolyQwen, whose
            pooling vector, head or prefixes would be lost (load it to continue training), or has no spare embeddings
            for the prefixes and `lora` is set; or `lora` is a DoRA, which transformers could not load again.
        FileNotFoundError: `base_model` is a path that is not there.
        ImportError: The extra "vision" is not installed, or "lora" for LoRA.

    Example:
        >>> from st_vi import build_vipolyqwen
        >>> model = build_vipolyqwen("Qwen/Qwen2-VL-2B-Instruct")  # doctest: +SKIP
        >>> model.encode({"image": "bien_bao.jpg", "text": "Biển báo này nghĩa là gì?"}).shape  # doctest: +SKIP
        (1024,)
    """
    check_choice("pooling", pooling, PoolingName)
    if head not in (*get_args(HeadName), None):
        raise ValueError(f"head must be one of {get_args(HeadName)} or None, got {head!r}")
    backbone = _backbone(included_or_same(base_model), lora, pooling, transformer_kwargs)
    width = backbone.get_embedding_dimension()
    modules: list[Module] = [backbone, AttentionPooling(width) if pooling == "attention" else Pooling(width, pooling)]
    if head == "mlp":
        modules.append(MLPHead(width, embedding_dimension, num_layers=2, activation="gelu", layer_norm=True))
    elif head == "linear":
        modules.append(MLPHead(width, embedding_dimension, num_layers=1, activation="identity"))
    # Stock casts the modules after the backbone to its dtype. The whole model is not cast: the rotary frequencies must
    # stay in fp32, or they would differ after loading.
    return SentenceTransformer(
        modules=[*modules, Normalize()],
        prompts=backbone.default_prompts(),
        model_card_data=ModelCard(language="vi", tags=[*TAGS, "vipolyqwen"]),
    )


def _backbone(
    base_model: str, lora: LoraConfig | bool | None, pooling: PoolingName, kwargs: dict[str, Any]
) -> Qwen2VLTransformer:
    config = lora_config() if lora is True else lora  # before loading gigabytes, in case PEFT is missing
    check_base(base_model, "build_vipolyqwen", pooling, kwargs)
    backbone = Qwen2VLTransformer(base_model, **kwargs)
    if config:
        # Read from the base: the configuration of the backbone changes with its embeddings.
        base = AutoConfig.from_pretrained(base_model, **(kwargs.get("config_kwargs") or {}))
        add_lora(backbone, config, base.get_text_config().vocab_size)
    return backbone


def vipolyqwen_training_arguments(output_dir: str | Path, **arguments: Any) -> SentenceTransformerTrainingArguments:
    """Stock training arguments with the settings of the paper (Section 5.2).

    3 epochs; batch size 12 with 10 accumulation steps, which add no negatives; AdamW with 2e-5, and 2e-6 for the vision
    tower; cosine schedule with 10 % warm-up; weight decay 0.01; gradient clipping at 1.0; bf16 if the GPU supports it.

    Args:
        output_dir: Folder for checkpoints.
        **arguments: Stock arguments that override these.

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
        "learning_rate_mapping": dict(_RATES),
        "lr_scheduler_type": "cosine",
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
    }
    return common_arguments(output_dir, **defaults | arguments)


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
    lazy_images: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
    balance: Balance | BalanceName | None = None,
    **arguments: Any,
) -> SentenceTransformerTrainer:
    """Train `model` in place on rows of mixed tasks with the stock trainer, and save it in `output_dir`.

    Args:
        model: Model from `build_vipolyqwen`, or any model that accepts the inputs in the rows.
        train_dataset: Columns anchor, positive and task, and optionally score, anchor_image, positive_image,
            anchor_video and positive_video, as a `Dataset`, a list of dicts, a pandas DataFrame, or a stream
            (`IterableDataset`), which needs `max_steps` and is checked as it arrives. With a single dataset, every
            batch mixes tasks. With a `DatasetDict`, each batch comes from one dataset, so that all its rows are
            in-batch negatives of each other if they have the same task; the stock ``multi_dataset_batch_sampler`` sets
            whether datasets are sampled in proportion to their size or in turn. (The paper gives no proportions.)
        output_dir: Folder for checkpoints and the trained model.
        evaluator: Runs whenever a checkpoint is saved, by default after every epoch; the best checkpoint is restored at
            the end. In a list, the last evaluator with a primary metric decides.
        loss: A loss for this model; defaults to a `DLELoss` with the tasks of the paper and as many positives as there
            are columns. If a row that is not streamed has the task of `VIDEO_TASK`, the default has it too, and the
            model gets its prefix. Stock losses, of all datasets or of some by name, get scores as labels if
            all rows of a batch have one.
        prefix_side: See `MixedTaskCollator`.
        prefix_dropout: See `MixedTaskCollator`.
        info_nce_warm_up: Share of the steps at the start with InfoNCE only; see `InfoNCEWarmUp`. Not in the paper, but
            needed for a randomly initialised model.
        bad_image: "error" for an error if an image or video cannot be read, or "skip" to skip the row and count it in a
            warning.
        lazy_images: Open images and videos mini-batch by mini-batch; see `MixedTaskCollator`. Needs a `CachedDLELoss`.
        resume: Continue from the last checkpoint in `output_dir`, if any. Rows, base model, loss and arguments must be
            the same; only settings without effect on the weights, such as logging, may change.
        overwrite: Replace the model and the checkpoints of an earlier run in `output_dir`.
        callbacks: Callbacks for the trainer, in addition to a `DLEMonitor`.
        balance: How the loss terms are weighted, such as "grad_norm" or an object of `st_vi.losses.GradNorm`; None for
            the constants of the paper. A loss of your own has its own `balance`. Parameters of a strategy, or of a
            learned term, are trained with a learning rate of 0.025, unless `learning_rate_mapping` has a pattern for
            them.
        **arguments: As for `vipolyqwen_training_arguments`.

    Returns:
        The trainer, with its log in ``trainer.state.log_history``.

    Raises:
        ValueError: Before the first step: a row is invalid (`check_task_rows`), the loss or a term lacks a column,
            `model` cannot process the images of a row, `lazy_images` has another loss than a `CachedDLELoss`,
            `balance` is given together with a `loss`, `loss` was made with another model, or `output_dir` is a file,
            has an earlier run and neither `resume` nor `overwrite` is set, or has another run and `resume` is set.
        OSError: The disk is full; names the checkpoint to resume from.
    """
    check_model(model)
    rows = as_train_rows(train_dataset)
    if loss and balance:
        raise ValueError(f"balance={balance!r} is for the default loss: pass it to your own, DLELoss(model, balance=…)")
    loss = made_with(loss, model) if loss else _default_loss(model, rows, balance)
    own = own_losses(loss, DLELoss)
    losses = loss if isinstance(loss, Mapping) else {"": loss}
    if lazy_images and not (own and all(isinstance(part, CachedDLELoss) for part in own)):
        raise ValueError("lazy_images=True needs loss=CachedDLELoss(model, …)")
    tasks, rows = tasks_of(own), checked_rows(rows, own, model, bad_image)
    check_evaluator(model, evaluator)
    if not any("visual." in name for name, _ in model.named_parameters()):
        arguments = {"learning_rate_mapping": {}} | arguments  # a text model has no vision tower
    if info_nce_warm_up and not own:
        raise ValueError("info_nce_warm_up needs a DLELoss")
    warm_up = [InfoNCEWarmUp(part, info_nce_warm_up) for part in own] if info_nce_warm_up else []
    names = [
        name
        for loss in own
        for part in (loss.balance, loss.learned)
        if part is not None
        for name in own_parameters(part)
    ]
    keepers = [LossKeeper(*own)] if any(loss.balance is not None or len(loss.learned) for loss in own) else []
    arguments = _with_rates(names, arguments)
    collator: Any = partial(MixedTaskCollator, lazy_images=lazy_images)
    if stock := [name for name, part in losses.items() if not own_losses(part, DLELoss)]:
        collator = partial(ScoreCollator, datasets=stock if isinstance(loss, Mapping) else None)
    return train(
        model,
        undecoded(rows) if lazy_images else rows,
        output_dir,
        loss,
        vipolyqwen_training_arguments,
        arguments,
        evaluator=evaluator,
        data_collator=collator(model.preprocess, tasks=tasks, prefix_side=prefix_side, prefix_dropout=prefix_dropout),
        resume=resume,
        overwrite=overwrite,
        callbacks=[DLEMonitor(*own), *keepers, *warm_up, *callbacks],
        settings={
            "prefix_side": prefix_side,
            "prefix_dropout": prefix_dropout,
            "info_nce_warm_up": info_nce_warm_up,
        },
    )


def _default_loss(
    model: SentenceTransformer,
    rows: Dataset | IterableDataset | DatasetDict,
    balance: Balance | BalanceName | None,
) -> DLELoss:
    tasks = VIPOLYQWEN_TASKS
    parts = rows.values() if isinstance(rows, DatasetDict) else [rows]
    if any(isinstance(part, Dataset) and _has_video_task(part) for part in parts):
        tasks = (*tasks, VIDEO_TASK)
        if isinstance(backbone := model[0], Qwen2VLTransformer):
            backbone.add_prefixes([VIDEO_TASK.prefix])
            model.prompts = {**backbone.default_prompts(), **model.prompts}
    return DLELoss(model, tasks, num_positives=num_positives(rows) or 1, balance=balance)


def _has_video_task(rows: Dataset) -> bool:
    return "task" in rows.column_names and VIDEO_TASK.name in rows["task"][:]


def _with_rates(names: Sequence[str], arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments with a learning rate for these parameters of losses where they have none."""
    rates = arguments.get("learning_rate_mapping", _RATES)
    if not isinstance(rates, dict):  # JSON, as stock also takes it
        return arguments
    for name in names:
        if not any(re.search(pattern, name) for pattern in rates):
            rates = rates | {f"{re.escape(name)}$": RATE}
    return arguments if rates is _RATES else arguments | {"learning_rate_mapping": rates}


def vipolyqwen_evaluator(rows: TrainRows, **settings: Any) -> TaskRetrievalEvaluator:
    """An evaluator of retrieval and scores on held-out rows, with the prompt and the corpus of each task.

    Args:
        rows: As for `train_vipolyqwen`, optionally with a column `options`, which may include the right answer. In a
            `DatasetDict`, every dataset is a separate corpus, reported under its name. Images are opened batch by
            batch.
        **settings: Arguments of `TaskRetrievalEvaluator`.

    Raises:
        ValueError: A column is missing; a dataset in a `DatasetDict` has several tasks or no rows; a row has options
            that are no list of texts, or neither text, image nor video, or one that cannot be read.

    Example:
        >>> from st_vi.data.generated.rows import generated_rows
        >>> from st_vi.recipes import vipolyqwen_evaluator
        >>> evaluator = vipolyqwen_evaluator(generated_rows("test", 2, seed=0, kinds=["words", "questions"]))
        >>> evaluator.prompt_names
        {'words': 'ocr', 'questions': 'vqa_single'}
    """
    rows = as_datasets(rows)
    if isinstance(rows, Dataset):
        rows = split_by_task(rows)
    prompts, tasks, scores, options = {}, [], [], []
    for name, part in rows.items():
        if missing := {"anchor", "positive", "task"} - set(part.column_names):
            raise ValueError(f"dataset {name!r}: missing column {min(missing)!r}; the columns are {part.column_names}")
        if len(of_part := set(part["task"])) != 1:
            raise ValueError(f"dataset {name!r} must have rows of a single task, got {sorted(of_part) or 'no rows'}")
        (prompts[name],) = of_part
        tasks += [name] * len(part)
        values = part.select_columns([c for c in ("positive", "score", "options") if c in part.column_names]).to_list()
        for number, row in enumerate(values):
            check_options(row, number)
            scores.append(score_of(row, number))
        options += [
            [one for one in row.get("options") or () if comparison_key(one) != comparison_key(text_of(row, "positive"))]
            for row in values
        ]
    anchors, positives = (ModelInputs(rows, column) for column in ("anchor", "positive"))
    return TaskRetrievalEvaluator(anchors, positives, tasks, scores, options, prompt_names=prompts, **settings)

"""``python -m st_vi train viclsr | vipolyqwen``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from st_vi.cli.base import trained_base
from st_vi.cli.common import NLI_ROLES, can_be_evaluated, echo_metrics, interruptible, nli_evaluator, task_roles
from st_vi.cli.options import (
    BF16,
    BatchSize,
    Columns,
    Device,
    Epochs,
    Labels,
    MaxSteps,
    Overwrite,
    Rate,
    Resume,
    SaveSteps,
    Seed,
    SkipBadImages,
    folder,
    how_to_resume,
    pairs,
    positive,
    refuse,
    roles,
    say_if_from_scratch,
    training_options,
    use_device,
)
from st_vi.cli.quiet import one_bar


def viclsr(
    context: typer.Context,
    base: Annotated[str, typer.Option(help="encoder to start from: a Hub id, a folder or vi-mini")],
    train: Annotated[
        list[str], typer.Option(help="NLI rows: .jsonl, .csv, .tsv, .xlsx, .parquet or a Hub id; repeatable")
    ],
    output: Annotated[Path, typer.Option(help="folder for checkpoints and the trained model", parser=folder)],
    evaluation: Annotated[
        list[str] | None, typer.Option("--eval", help="held-out NLI rows; default: a share of --train, see --eval-size")
    ] = None,
    eval_size: Annotated[float, typer.Option(min=0, max=0.9, help="share of the premises to hold out")] = 0.1,
    columns: Columns = None,
    label: Labels = None,
    neutral: Literal["skip", "hard_negative", "weak_positive"] = "skip",
    skip_conflicts: Annotated[bool, typer.Option(help="skip texts with conflicting labels")] = False,
    activation: Literal["tanh", "identity"] = "tanh",
    head_init: Annotated[
        Literal["random", "identity"], typer.Option(help="identity: for a base whose vectors are good already")
    ] = "random",
    pooling: Annotated[
        Literal["cls", "mean"] | None, typer.Option(help="default: that of the base; cls if it has none")
    ] = None,
    temperature: Annotated[float, typer.Option(callback=positive)] = 0.05,
    hard_negative_weight: float = 0.0,
    same_anchor: Literal["positive", "mask", "negative"] = "positive",
    symmetric: bool = False,
    epochs: Epochs = 3,
    max_steps: MaxSteps = None,
    save_steps: SaveSteps = None,
    batch_size: BatchSize = 512,
    learning_rate: Rate = 1e-5,
    max_length: Annotated[int, typer.Option(min=3, help="maximum tokens per text")] = 256,
    bf16: BF16 = None,
    device: Device = None,
    seed: Seed = 42,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Train ViCLSR on NLI rows: entailments are positives, contradictions hard negatives."""
    if evaluation:
        refuse(context, "with --eval", "eval_size")
    if max_steps:
        refuse(context, "with --max-steps", "epochs")
    (found,) = roles(columns, NLI_ROLES)
    names = pairs("--label", label)
    say_if_from_scratch(output, resume)
    device = use_device(device)

    one_bar(context)
    from transformers import set_seed

    from st_vi.data import nli_to_triplets, split_by_anchor
    from st_vi.data.sources import nli_rows, say_what_is_in_both
    from st_vi.hub import included_or_same
    from st_vi.losses import SupConNLILoss
    from st_vi.recipes import build_viclsr, train_viclsr
    from st_vi.recipes.training.progress import Bar

    groups = [train, evaluation] if evaluation else [train]
    rows, held_out = (*nli_rows(*groups, columns=found, labels=names, places=True), None)[:2]
    if held_out:
        say_what_is_in_both(rows, held_out)
    elif eval_size:
        sides = split_by_anchor(rows, eval_size, anchor="premise", seed=seed)
        if can_be_evaluated(sides["test"]):
            rows, held_out = sides["train"], sides["test"]
        else:
            typer.echo(f"--eval-size {eval_size} holds out too few of {len(rows)} rows: no evaluation", err=True)
    arguments = training_options(max_steps, save_steps, bf16, device, bool(held_out))
    triplets = nli_to_triplets(
        rows,
        neutral=neutral,
        conflict="skip" if skip_conflicts else "error",
        seed=seed,
        places=rows["place"],
    )
    typer.echo(triplets.report)

    set_seed(seed)  # for the head
    base = included_or_same(base)
    model = trained_base(context, base, "activation", "head_init", "pooling", "max_length")
    model = model or build_viclsr(base, activation, max_length, pooling, head_init=head_init)
    loss = SupConNLILoss(model, temperature, hard_negative_weight, same_anchor, symmetric=symmetric)
    with interruptible(lambda: how_to_resume(output, overwrite)):
        trainer = train_viclsr(
            model,
            triplets,
            output,
            evaluator=nli_evaluator(held_out, evaluation or train, show_progress_bar=False) if held_out else None,
            loss=loss,
            resume=resume,
            overwrite=overwrite,
            num_train_epochs=epochs,
            per_device_train_batch_size=batch_size,
            learning_rate=learning_rate,
            seed=seed,
            callbacks=[Bar()],
            **arguments,
        )
        if held_out:
            echo_metrics(trainer.evaluate())
    typer.echo(f"Saved in {output}. Load it with st_vi.load({str(output)!r}).")


def vipolyqwen(
    context: typer.Context,
    base: Annotated[str, typer.Option(help="a Qwen2-VL: a Hub id, a folder or poly-mini")],
    train: Annotated[
        list[str], typer.Option(help="rows of mixed tasks: a file as for viclsr, or a Hub id; repeatable")
    ],
    output: Annotated[Path, typer.Option(help="folder for checkpoints and the trained model", parser=folder)],
    evaluation: Annotated[list[str] | None, typer.Option("--eval", help="held-out rows of mixed tasks")] = None,
    columns: Columns = None,
    embedding_dimension: Annotated[int, typer.Option(min=1)] = 1024,
    pooling: Literal["attention", "mean", "lasttoken"] = "attention",
    max_pixels: Annotated[
        int, typer.Option(min=28 * 28, help="maximum pixels per image; 784 are one visual token")
    ] = 512 * 28 * 28,
    lora: Annotated[bool, typer.Option("--lora", help="train an adapter (PEFT) instead of the whole backbone")] = False,
    lora_rank: Annotated[int, typer.Option(min=1, help="rank for --lora; try --learning-rate 2e-4")] = 16,
    prefix_dropout: Annotated[float, typer.Option(min=0, max=1, help="share of rows without a prefix")] = 0.0,
    balance: Annotated[
        Literal["uncertainty", "grad_norm", "dynamic_weight_average", "equal_gradient_norm", "pc_grad"] | None,
        typer.Option(help="weight the loss terms by a strategy instead of constants"),
    ] = None,
    skip_bad_images: SkipBadImages = False,
    epochs: Epochs = 3,
    max_steps: MaxSteps = None,
    save_steps: SaveSteps = None,
    batch_size: BatchSize = 12,
    accumulation: Annotated[int, typer.Option(min=1, help="batches per step; they add no negatives")] = 10,
    learning_rate: Rate = 2e-5,
    vision_learning_rate: Annotated[float, typer.Option(min=0, help="0 freezes the vision tower")] = 2e-6,
    bf16: BF16 = None,
    device: Device = None,
    seed: Seed = 42,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Train viPolyQwen on rows with anchor, positive and task, and optionally score and anchor_image."""
    if lora:
        refuse(context, "with --lora, which freezes the vision tower", "vision_learning_rate")
    else:
        refuse(context, "without --lora", "lora_rank")
    if max_steps:
        refuse(context, "with --max-steps", "epochs")
    (found,) = roles(columns, task_roles())
    say_if_from_scratch(output, resume)
    arguments = training_options(max_steps, save_steps, bf16, use_device(device), bool(evaluation))

    one_bar(context)
    from transformers import set_seed

    from st_vi.data.sources import say_what_is_in_both, task_rows
    from st_vi.hub import included_or_same
    from st_vi.recipes import build_vipolyqwen, lora_config, train_vipolyqwen, vipolyqwen_evaluator
    from st_vi.recipes.training.progress import Bar

    adapter = lora_config(lora_rank) if lora else None
    bad_image: Literal["error", "skip"] = "skip" if skip_bad_images else "error"
    rows, report = task_rows(train, found, bad_image=bad_image)
    typer.echo(report)
    evaluator = None
    if evaluation:
        held_out, _ = task_rows(evaluation, found, bad_image=bad_image)
        say_what_is_in_both(rows, held_out)
        evaluator = vipolyqwen_evaluator(held_out)
    set_seed(seed)  # for pooling and head
    base = included_or_same(base)
    model = trained_base(context, base, "embedding_dimension", "pooling", "max_pixels", "lora")
    model = model or build_vipolyqwen(base, embedding_dimension, pooling, lora=adapter, max_pixels=max_pixels)
    with interruptible(lambda: how_to_resume(output, overwrite)):
        trainer = train_vipolyqwen(
            model,
            rows,
            output,
            evaluator=evaluator,
            prefix_dropout=prefix_dropout,
            balance=balance,
            resume=resume,
            overwrite=overwrite,
            num_train_epochs=epochs,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            learning_rate=learning_rate,
            learning_rate_mapping={r"visual\.": vision_learning_rate},
            seed=seed,
            callbacks=[Bar()],
            **arguments,
        )
        if evaluator:
            echo_metrics(trainer.evaluate())
    typer.echo(f"Saved in {output}. Load it with st_vi.load({str(output)!r}).")

"""The command line: ``python -m st_vi demo | train … | evaluate | encode | ablate …``."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from st_vi.cli import search
from st_vi.cli.base import trained_base
from st_vi.cli.demo import demo_viclsr
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
    finite,
    how_to_resume,
    loading_options,
    pairs,
    positive,
    refuse,
    roles,
    training_options,
    use_device,
)
from st_vi.cli.quiet import one_bar

app = typer.Typer(help="Vietnamese embeddings for sentence-transformers.", no_args_is_help=True, add_completion=False)
train_app = typer.Typer(help="Train one of the systems.", no_args_is_help=True)
app.add_typer(train_app, name="train")
ablate_app = typer.Typer(help="Measure the contribution of each part.", no_args_is_help=True)
app.add_typer(ablate_app, name="ablate")
distill_app = typer.Typer(help="Distil a small model from a large one.", no_args_is_help=True)
app.add_typer(distill_app, name="distill")
app.command()(search.search)

# Heavy imports are inside the commands, so that --help is fast.

NLI_ROLES = ("premise", "hypothesis", "label")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"st-vi {version_of('st-vi')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True)] = False,
) -> None:
    """Vietnamese embeddings for sentence-transformers."""


@app.command()
def demo(
    context: typer.Context,
    system: Annotated[Literal["viclsr", "vipolyqwen"], typer.Option(help="text, or text and images")] = "viclsr",
    output: Annotated[Path, typer.Option(help="folder for the trained model")] = Path("outputs/demo"),
    epochs: Annotated[int, typer.Option(min=1, help="training epochs of viclsr")] = 2,
    steps: Annotated[int, typer.Option(min=1, help="training steps of vipolyqwen")] = 400,
) -> None:
    """Demonstrate an included or small model and train it. Downloads nothing."""
    refuse(context, f"with --system {system}", "steps" if system == "viclsr" else "epochs")
    one_bar(context)
    with _interruptible(lambda: "run the same command to start again"):
        if system == "viclsr":
            demo_viclsr(output, epochs)
        else:
            _demo_vipolyqwen(output, steps)


def _demo_vipolyqwen(output: Path, steps: int) -> None:
    from st_vi.recipes.examples.demo_vipolyqwen import run_vision_demo

    typer.echo("Training a small Qwen2-VL, randomly initialised, on pictures of coloured shapes …", err=True)
    result = run_vision_demo(output, steps)
    typer.echo(f"\n{'recall@1 on unseen scenes':<28}{'chance':>8}{'before':>8}{'after':>8}")
    for name, (before, after, chance) in result.figures.items():
        typer.echo(f"{name:<28}{100 * chance:>8.1f}{100 * before:>8.1f}{100 * after:>8.1f}")
    typer.echo(f"\nReloaded from {output / 'model'}; cosine of the image {output / 'scene.png'} with:")
    for text, value in zip(result.texts, result.similarities.tolist(), strict=True):
        typer.echo(f"  {value:5.2f}   {text}")


@train_app.command()
def viclsr(
    context: typer.Context,
    base: Annotated[str, typer.Option(help="encoder to start from: a Hub id or a folder")],
    train: Annotated[
        list[str], typer.Option(help="NLI rows: .jsonl, .csv, .tsv, .xlsx, .parquet or a Hub id; repeatable")
    ],
    output: Annotated[Path, typer.Option(help="folder for checkpoints and the trained model")],
    evaluation: Annotated[
        list[str] | None, typer.Option("--eval", help="held-out NLI rows; default: a share of --train, see --eval-size")
    ] = None,
    eval_size: Annotated[float, typer.Option(min=0, max=0.9, help="share of the premises to hold out")] = 0.1,
    columns: Columns = None,
    label: Labels = None,
    neutral: Literal["skip", "hard_negative", "weak_positive"] = "skip",
    skip_conflicts: Annotated[bool, typer.Option(help="skip texts with conflicting labels")] = False,
    activation: Literal["tanh", "identity"] = "tanh",
    pooling: Literal["cls", "mean"] = "cls",
    temperature: Annotated[float, typer.Option(callback=positive)] = 0.05,
    hard_negative_weight: Annotated[float, typer.Option(callback=finite)] = 0.0,
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
    seed: Annotated[int, typer.Option(min=0)] = 42,
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
    arguments = training_options(max_steps, save_steps, bf16, use_device(device), bool(evaluation or eval_size))

    one_bar(context)
    from transformers import set_seed

    from st_vi.data import nli_to_triplets, split_by_anchor
    from st_vi.data.sources import nli_rows
    from st_vi.losses import SupConNLILoss
    from st_vi.recipes import build_viclsr, train_viclsr
    from st_vi.recipes.training.progress import Bar

    groups = [train, evaluation] if evaluation else [train]
    rows, held_out = (*nli_rows(*groups, columns=found, labels=names), None)[:2]
    if eval_size and not evaluation:
        sides = split_by_anchor(rows, eval_size, anchor="premise", seed=seed)
        rows, held_out = sides["train"], sides["test"]
    triplets = nli_to_triplets(rows, neutral=neutral, conflict="skip" if skip_conflicts else "error", seed=seed)
    typer.echo(triplets.report)

    set_seed(seed)  # for the head
    model = trained_base(context, base, "activation", "pooling", "max_length")
    model = model or build_viclsr(base, activation, max_length, pooling)
    loss = SupConNLILoss(model, temperature, hard_negative_weight, same_anchor, symmetric=symmetric)
    with _interruptible(lambda: how_to_resume(output)):
        trainer = train_viclsr(
            model,
            triplets,
            output,
            evaluator=held_out and _nli_evaluator(held_out, show_progress_bar=False),
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
            _echo_metrics(trainer.evaluate())
    typer.echo(f"Saved in {output}. Load it with st_vi.load({str(output)!r}).")


@train_app.command()
def vipolyqwen(
    context: typer.Context,
    base: Annotated[str, typer.Option(help="a Qwen2-VL: a Hub id or a folder")],
    train: Annotated[
        list[str], typer.Option(help="rows of mixed tasks: a file as for viclsr, or a Hub id; repeatable")
    ],
    output: Annotated[Path, typer.Option(help="folder for checkpoints and the trained model")],
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
    skip_bad_images: Annotated[bool, typer.Option(help="skip rows whose image cannot be read")] = False,
    epochs: Epochs = 3,
    max_steps: MaxSteps = None,
    save_steps: SaveSteps = None,
    batch_size: BatchSize = 12,
    accumulation: Annotated[int, typer.Option(min=1, help="batches per step; they add no negatives")] = 10,
    learning_rate: Rate = 2e-5,
    vision_learning_rate: Annotated[
        float, typer.Option(min=0, callback=finite, help="0 freezes the vision tower")
    ] = 2e-6,
    bf16: BF16 = None,
    device: Device = None,
    seed: Annotated[int, typer.Option(min=0)] = 42,
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
    (found,) = roles(columns, _task_roles())
    arguments = training_options(max_steps, save_steps, bf16, use_device(device), bool(evaluation))

    one_bar(context)
    from transformers import set_seed

    from st_vi.data.sources import task_rows
    from st_vi.recipes import build_vipolyqwen, lora_config, train_vipolyqwen, vipolyqwen_evaluator
    from st_vi.recipes.training.progress import Bar

    adapter = lora_config(lora_rank) if lora else None
    bad_image: Literal["error", "skip"] = "skip" if skip_bad_images else "error"
    rows, report = task_rows(train, found, bad_image=bad_image)
    typer.echo(report)
    evaluator = None
    if evaluation:
        held_out, _ = task_rows(evaluation, found, bad_image=bad_image)
        evaluator = vipolyqwen_evaluator(held_out)
    set_seed(seed)  # for pooling and head
    model = trained_base(context, base, "embedding_dimension", "pooling", "max_pixels", "lora")
    model = model or build_vipolyqwen(base, embedding_dimension, pooling, lora=adapter, max_pixels=max_pixels)
    with _interruptible(lambda: how_to_resume(output)):
        trainer = train_vipolyqwen(
            model,
            rows,
            output,
            evaluator=evaluator,
            prefix_dropout=prefix_dropout,
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
            _echo_metrics(trainer.evaluate())
    typer.echo(f"Saved in {output}. Load it with st_vi.load({str(output)!r}).")


@ablate_app.command("vipolyqwen")
def ablate_vipolyqwen(
    context: typer.Context,
    output: Annotated[Path, typer.Option(help="for results.jsonl, table.md and plot.html")] = Path("outputs/ablation"),
    seeds: Annotated[int, typer.Option(min=1, help="number of seeds: 0, 1, …")] = 3,
    variant: Annotated[list[str] | None, typer.Option(help="only this and the baseline; repeatable")] = None,
    steps: Annotated[int, typer.Option(min=1)] = 800,
    rows: Annotated[int, typer.Option(min=1, help="generated training rows of each kind")] = 3000,
    test_rows: Annotated[int, typer.Option(min=1, help="generated test rows of each kind")] = 200,
    nli: Annotated[list[str] | None, typer.Option(help="NLI rows for text pairs; default: the sample set")] = None,
    columns: Columns = None,
    label: Labels = None,
    base: Annotated[str | None, typer.Option(help="a pretrained Qwen2-VL; default: a small random one")] = None,
    train: Annotated[list[str] | None, typer.Option(help="rows of mixed tasks instead of generated ones")] = None,
    evaluation: Annotated[list[str] | None, typer.Option("--eval", help="held-out rows for --train")] = None,
    bf16: BF16 = None,
    device: Device = None,
    table_only: Annotated[bool, typer.Option(help="only report the results so far")] = False,
) -> None:
    """Change one part of viPolyQwen at a time, and write a table with intervals and a plot. Resumable."""
    if bool(train) != bool(evaluation):
        raise ValueError("--train and --eval must be used together")
    if table_only:
        settings = [
            parameter.name for parameter in context.command.params if parameter.name not in ("output", "table_only")
        ]
        refuse(context, "with --table-only", *filter(None, settings))
    if train:
        refuse(context, "with --train", "rows", "test_rows", "nli", "label")
    elif not nli:
        refuse(context, "without --nli or --train", "label", "columns")
    (found,) = roles(columns, _task_roles() if train else NLI_ROLES)
    names = pairs("--label", label)
    arguments = training_options(None, None, bf16, use_device(device), False)

    one_bar(context)
    from st_vi.data import split_by_task
    from st_vi.data.sources import nli_rows, task_rows
    from st_vi.recipes.ablation.report import headline, plot, summarise, table
    from st_vi.recipes.ablation.run import ablate, read_results
    from st_vi.recipes.ablation.study import generated_study, study_of_rows

    results = output / "results.jsonl"
    if not table_only:
        if train:
            sides = (split_by_task(task_rows(side, found)[0]) for side in (train, evaluation))  # type: ignore[arg-type]
            study = study_of_rows(*sides, output, steps, base)  # type: ignore[call-arg]
        else:
            (texts,) = nli_rows(nli, columns=found, labels=names) if nli else [None]
            study = generated_study(output, steps, rows, test_rows, nli=texts, base=base)
        study = replace(study, arguments={**study.arguments, **arguments})
        with _interruptible(lambda: f"run the same command to resume; finished runs are kept in {results}"):
            for result in ablate(study, results, range(seeds), variant):
                typer.echo(f"{result['variant']}, seed {result['seed']}: {headline(result)}", err=True)
    summaries = summarise(read_results(results))
    (output / "table.md").write_text(table(summaries) + "\n", encoding="utf-8")
    typer.echo(table(summaries))
    plot(summaries).write_html(output / "plot.html")
    typer.echo(f"Saved in {output}: results.jsonl, table.md, plot.html")


@app.command()
def evaluate(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="a Hub id or a folder")],
    nli: Annotated[list[str] | None, typer.Option(help="NLI rows for triplet accuracy and Spearman")] = None,
    rows: Annotated[list[str] | None, typer.Option(help="rows of mixed tasks for retrieval")] = None,
    columns: Columns = None,
    label: Labels = None,
    benchmark: Annotated[str | None, typer.Option(help="a benchmark of the ViCLSR paper, such as ViFactCheck")] = None,
    train: Annotated[str | None, typer.Option(help="its training rows, if they are not on the Hub")] = None,
    test: Annotated[str | None, typer.Option(help="its test rows, if they are not on the Hub")] = None,
    protocol: Literal["probe", "finetune"] = "probe",
    bf16: BF16 = None,
    device: Device = None,
    seed: Annotated[int, typer.Option(min=0)] = 42,
) -> None:
    """Evaluate a model on NLI rows, rows of mixed tasks or a benchmark. Prints one JSON object."""
    if not nli and not rows and not benchmark:
        raise ValueError("nothing to evaluate: give --nli, --rows or --benchmark")
    if not benchmark:
        refuse(context, "without --benchmark", "train", "test", "protocol", "seed")
    if not nli:
        refuse(context, "without --nli", "label")
    names = pairs("--label", label)
    encoder_options = loading_options(bf16, use_device(device))

    one_bar(context)
    from st_vi.data import read_rows
    from st_vi.data.sources import nli_rows, task_rows
    from st_vi.evaluation import NLU_BENCHMARKS, NLUEvaluator, load_benchmark
    from st_vi.hub import load
    from st_vi.recipes import vipolyqwen_evaluator

    if benchmark and benchmark not in NLU_BENCHMARKS:
        raise ValueError(f"no benchmark {benchmark!r}; there are {', '.join(NLU_BENCHMARKS)}")
    config = NLU_BENCHMARKS[benchmark] if benchmark else None
    readers = (NLI_ROLES if nli else (), _task_roles() if rows else (), config.columns if config else ())
    of_nli, of_rows, of_benchmark = roles(columns, *readers)
    evaluators = [_nli_evaluator(nli_rows(nli, columns=of_nli, labels=names)[0])] if nli else []
    if rows:
        evaluators.append(vipolyqwen_evaluator(task_rows(rows, of_rows)[0], show_progress_bar=True))
    if config:
        config = replace(config, columns={**config.columns, **of_benchmark})
        sources = {"train": train, "test": test}
        splits = (read_rows(path) if path else load_benchmark(config, split=name) for name, path in sources.items())
        evaluators.append(NLUEvaluator(config, *splits, protocol, seed=seed, show_progress_bar=True))  # type: ignore[call-arg,misc]
    encoder = load(model, **encoder_options)
    with _interruptible(lambda: "run the same command to start again"):
        _echo_metrics({name: value for evaluator in evaluators for name, value in evaluator(encoder).items()})


@app.command()
def encode(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="a Hub id or a folder")],
    rows: Annotated[
        str, typer.Argument(metavar="INPUT", help="rows: .jsonl, .csv, .tsv, .xlsx, .txt, .parquet or a Hub id")
    ],
    output: Annotated[Path, typer.Argument(help="folder for Parquet files with id and embedding")],
    column: Annotated[str | None, typer.Option(help="column to encode; default: text")] = None,
    image_column: Annotated[str | None, typer.Option(help="column of images, encoded with the text of the row")] = None,
    text_only: Annotated[bool, typer.Option("--text-only", help="treat image file names as text")] = False,
    keep: Annotated[list[str] | None, typer.Option(help="column to copy; repeatable")] = None,
    shard_rows: Annotated[int, typer.Option(min=1, help="rows per file")] = 10_000,
    max_tokens: Annotated[int, typer.Option(min=1, help="tokens per batch, including padding")] = 4096,
    prompt_name: Annotated[str | None, typer.Option(help="name of a prompt of the model, such as ocr")] = None,
    precision: Literal["float32", "float16", "binary", "ubinary"] = "float32",
    normalize: Annotated[bool, typer.Option("--normalize", help="scale vectors to length 1")] = False,
    chunk: Annotated[bool, typer.Option("--chunk", help="split long texts at sentence boundaries")] = False,
    chunk_tokens: Annotated[int | None, typer.Option(min=1, help="maximum tokens per chunk, with --chunk")] = None,
    bf16: BF16 = None,
    device: Device = None,
    skip_bad_rows: Annotated[bool, typer.Option(help="skip and list rows that cannot be encoded")] = False,
) -> None:
    """Encode a corpus into Parquet files, one shard in memory at a time. Resumable."""
    if not chunk:
        refuse(context, "without --chunk", "chunk_tokens")
    encoder_options = loading_options(bf16, use_device(device))

    one_bar(context)
    from st_vi.encoding import encode_corpus
    from st_vi.hub import load

    encoder = load(model, **encoder_options)
    with _interruptible(lambda: f"run the same command to resume; finished shards are kept in {output}"):
        result = encode_corpus(
            encoder,
            rows,
            output,
            column,
            image_column=image_column,
            text_only=text_only,
            keep=keep or (),
            shard_rows=shard_rows,
            max_tokens=max_tokens,
            prompt_name=prompt_name,
            precision=precision,
            normalize=normalize,
            chunk=chunk_tokens or chunk,
            bad_row="skip" if skip_bad_rows else "error",
            show_progress_bar=True,
        )
    done, *notes = str(result).splitlines()
    typer.echo("\n".join([f"{done} in {output}", *notes]))


@app.command()
def trim(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="a multilingual encoder or SentenceTransformer: a Hub id or a folder")],
    texts: Annotated[list[str], typer.Argument(help="rows of texts: .jsonl, .csv, .tsv, .parquet or a Hub id")],
    output: Annotated[Path, typer.Option(help="folder for the trimmed model")],
    column: Annotated[str, typer.Option(help="column of the texts")] = "text",
    max_pieces: Annotated[int | None, typer.Option(min=1, help="maximum number of pieces")] = None,
    min_count: Annotated[int, typer.Option(min=1, help="keep pieces that occur at least this often")] = 1,
    keep: Annotated[
        list[str] | None, typer.Option(help="text whose pieces are kept, such as a prompt; repeatable")
    ] = None,
    any_language: Annotated[bool, typer.Option(help="do not check that the texts are Vietnamese")] = False,
) -> None:
    """Trim the vocabulary of a model to the pieces used in texts. Prints one JSON object."""
    one_bar(context)
    from st_vi.hub import load
    from st_vi.vocabulary import trim_vocabulary

    encoder, rows = load(model), _texts(texts, column)
    report = trim_vocabulary(
        encoder, rows, max_pieces=max_pieces, min_count=min_count, keep=keep or (), vietnamese=not any_language
    )
    encoder.save_pretrained(str(output))
    typer.echo(report, err=True)
    typer.echo(json.dumps(report.as_dict(), indent=2))


@distill_app.command("encoder")
def distill(
    teacher: Annotated[str, typer.Option(help="teacher model: a Hub id or a folder")],
    documents: Annotated[list[str], typer.Option(help="paragraphs with title, text, section or subject; repeatable")],
    output: Annotated[Path, typer.Option(help="folder for the student, its stages and the teacher's vectors")],
    share: Annotated[list[float] | None, typer.Option(help="share of each --documents; repeatable")] = None,
    nli: Annotated[list[str] | None, typer.Option(help="NLI rows in addition to the sample set; repeatable")] = None,
    label: Labels = None,
    questions: Annotated[
        list[str] | None, typer.Option(help="rows with anchor, positive, document, added to the sample set; repeatable")
    ] = None,
    texts: Annotated[list[str] | None, typer.Option(help="rows with texts in everyday language; repeatable")] = None,
    layers: Annotated[str, typer.Option(help="teacher layers to keep, from 0")] = "2,5,8,11",
    max_pieces: Annotated[int, typer.Option(min=1, help="vocabulary size of the student")] = 14_300,
    prompt: Annotated[str, typer.Option(help="prompt of the teacher")] = "query: ",
    num_texts: Annotated[int, typer.Option(min=1, help="texts of the first stage")] = 250_000,
    num_questions: Annotated[int, typer.Option(min=1, help="questions of the second stage")] = 13_000,
    num_contradictions: Annotated[int, typer.Option(min=0, help="contradictions of the third stage")] = 2_500,
    seed: int = 0,
    resume: Annotated[bool, typer.Option(help="continue an earlier run in --output")] = False,
) -> None:
    """Distil a small encoder from a large one, in three stages: sentences, retrieval, NLI."""
    from datasets import concatenate_datasets

    from st_vi.data import read_rows, sample_nli
    from st_vi.data.sources import nli_rows
    from st_vi.recipes.distil import distill_encoder, sample_questions

    try:
        numbers = [int(layer) for layer in layers.split(",")]
    except ValueError:
        raise ValueError(f"--layers must be numbers such as 2,5,8,11, got {layers!r}") from None
    own = sample_nli("train").select_columns(["premise", "hypothesis", "label"])
    names = pairs("--label", label)
    further = [read_rows(source) for source in questions or []]
    with _interruptible(lambda: "run the same command with --resume to continue"):
        distill_encoder(
            teacher,
            [read_rows(source) for source in documents],
            output,
            nli=concatenate_datasets([own, *nli_rows(nli, labels=names)]) if nli else own,
            questions=concatenate_datasets([sample_questions(), *further]),
            texts=_texts(texts, "text") if texts else (),
            layers=numbers,
            max_pieces=max_pieces,
            prompt=prompt,
            num_texts=num_texts,
            num_questions=num_questions,
            num_contradictions=num_contradictions,
            shares=share,
            seed=seed,
            resume=resume,
            progress=lambda message: typer.echo(message, err=True),
        )
    typer.echo(f"Saved in {output}. The results of each stage are in {output / 'log.jsonl'}.")


def _texts(sources: list[str], column: str) -> list[str]:
    """One column of all sources."""
    from st_vi.data import read_rows
    from st_vi.data.columns import clean_texts

    texts: list[str] = []
    for source in sources:
        rows = read_rows(source)
        if column not in rows.column_names:
            raise ValueError(f"{source}: missing column {column!r}; the columns are {rows.column_names}")
        try:
            texts += clean_texts(rows[column], column)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error
    return texts


def _task_roles() -> tuple[str, ...]:
    from st_vi.data.sources import TASK_ROLES

    return TASK_ROLES


def _nli_evaluator(rows: Any, show_progress_bar: bool = True) -> Any:
    from st_vi.data.labels import OTHER
    from st_vi.evaluation import NLISimilarityEvaluator

    rows = rows.filter(lambda label: label != OTHER, input_columns="label")
    return NLISimilarityEvaluator(
        rows["premise"], rows["hypothesis"], rows["label"], show_progress_bar=show_progress_bar
    )


def _echo_metrics(metrics: dict[str, float]) -> None:
    values = {name: round(float(value), 4) for name, value in metrics.items()}
    # JSON has no NaN.
    typer.echo(json.dumps({name: None if math.isnan(value) else value for name, value in values.items()}, indent=2))


@contextmanager
def _interruptible(go_on: Callable[[], str]) -> Iterator[None]:
    """On Ctrl-C, end the command with a message on how to resume."""
    try:
        yield
    except KeyboardInterrupt:
        raise _InterruptedError(go_on()) from None


class _InterruptedError(Exception):
    """Carries a message on how to resume."""


def _fail(message: str) -> None:
    typer.secho(f"error: {' '.join(message.split())}", fg=typer.colors.RED, err=True)
    sys.exit(2)


def main() -> None:
    """Run the command line. Bad input exits with code 2 and a one-line message, Ctrl-C with code 130."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # consoles without Vietnamese letters show "\\u1eeb"
            stream.reconfigure(errors="backslashreplace")
    go_on = "nothing was written; run the same command to start again"
    try:
        code = app(standalone_mode=False)
    except (ValueError, OSError, ImportError) as error:
        _fail(str(error))
    except _InterruptedError as error:
        code, go_on = 130, str(error)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:
        if not hasattr(error, "format_message"):  # raised by typer for invalid options
            raise
        if type(error).__name__ == "NoArgsIsHelpError":  # show the help
            typer.echo(str(error.format_message() or ""), err=True)
            sys.exit(2)
        _fail(error.format_message())
    if code == 130:  # typer also turns Ctrl-C into this
        typer.echo(f"\ninterrupted: {go_on}", err=True)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()

"""``python -m st_vi evaluate``."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import typer

from st_vi.cli.common import NLI_ROLES, echo_metrics, interruptible, nli_evaluator, task_roles
from st_vi.cli.options import (
    Columns,
    Device,
    Labels,
    LoadBF16,
    Seed,
    SkipBadImages,
    loading_options,
    pairs,
    refuse,
    roles,
    use_device,
)
from st_vi.cli.quiet import one_bar


def evaluate(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="a Hub id or a folder")],
    nli: Annotated[list[str] | None, typer.Option(help="NLI rows for triplet accuracy and Spearman")] = None,
    rows: Annotated[list[str] | None, typer.Option(help="rows of mixed tasks for retrieval")] = None,
    columns: Columns = None,
    skip_bad_images: SkipBadImages = False,
    label: Labels = None,
    benchmark: Annotated[str | None, typer.Option(help="a benchmark of the ViCLSR paper, such as ViFactCheck")] = None,
    train: Annotated[str | None, typer.Option(help="its training rows, if they are not on the Hub")] = None,
    test: Annotated[str | None, typer.Option(help="its test rows, if they are not on the Hub")] = None,
    protocol: Literal["probe", "finetune"] = "probe",
    bf16: LoadBF16 = None,
    device: Device = None,
    seed: Seed = 42,
) -> None:
    """Evaluate a model on NLI rows, rows of mixed tasks or a benchmark. Prints one JSON object."""
    if not nli and not rows and not benchmark:
        raise ValueError("nothing to evaluate: give --nli, --rows or --benchmark")
    if not benchmark:
        refuse(context, "without --benchmark", "train", "test", "protocol", "seed")
    if not nli:
        refuse(context, "without --nli", "label")
    if not rows:
        refuse(context, "without --rows", "skip_bad_images")
    names = pairs("--label", label)
    encoder_options = loading_options(bf16, use_device(device))

    one_bar(context)
    from st_vi.data.sources import nli_rows, task_rows
    from st_vi.evaluation import NLU_BENCHMARKS, NLUEvaluator, load_benchmark
    from st_vi.hub import load
    from st_vi.recipes import vipolyqwen_evaluator

    if benchmark and benchmark not in NLU_BENCHMARKS:
        raise ValueError(f"no benchmark {benchmark!r}; there are {', '.join(NLU_BENCHMARKS)}")
    config = NLU_BENCHMARKS[benchmark] if benchmark else None
    readers = (NLI_ROLES if nli else (), task_roles() if rows else (), config.columns if config else ())
    of_nli, of_rows, of_benchmark = roles(columns, *readers)
    evaluators = [nli_evaluator(nli_rows(nli, columns=of_nli, labels=names)[0], nli)] if nli else []
    if rows:
        found, _ = task_rows(rows, of_rows, bad_image="skip" if skip_bad_images else "error")
        evaluators.append(vipolyqwen_evaluator(found, show_progress_bar=True))
    if config:
        config = replace(config, columns={**config.columns, **of_benchmark})
        sources = {"train": train, "test": test}
        splits = (load_benchmark(config, path, split=name) for name, path in sources.items())
        evaluators.append(NLUEvaluator(config, *splits, protocol, seed=seed, show_progress_bar=True))  # type: ignore[call-arg,misc]
    encoder = load(model, **encoder_options)
    for evaluator in evaluators:
        if missing := set(getattr(evaluator, "prompt_names", {}).values()) - set(encoder.prompts):
            raise ValueError(f"{model} has no prompts for the tasks {', '.join(sorted(missing))} of --rows")
    with interruptible(lambda: "run the same command to start again"):
        echo_metrics({name: value for evaluator in evaluators for name, value in evaluator(encoder).items()})

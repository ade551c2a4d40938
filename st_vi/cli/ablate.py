"""``python -m st_vi ablate vipolyqwen``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from st_vi.cli.common import NLI_ROLES, interruptible, task_roles
from st_vi.cli.options import (
    BF16,
    Columns,
    Device,
    Labels,
    SkipBadImages,
    folder,
    pairs,
    positive,
    refuse,
    roles,
    training_options,
    use_device,
)
from st_vi.cli.quiet import one_bar


def ablate_vipolyqwen(
    context: typer.Context,
    output: Annotated[Path, typer.Option(help="for results.jsonl, table.md and plot.html", parser=folder)] = Path(
        "outputs/ablation"
    ),
    seeds: Annotated[int, typer.Option(min=1, help="number of seeds: 0, 1, …")] = 3,
    variant: Annotated[list[str] | None, typer.Option(help="only this and the baseline; repeatable")] = None,
    steps: Annotated[int, typer.Option(min=1)] = 800,
    rows: Annotated[int, typer.Option(min=1, help="generated training rows of each kind")] = 3000,
    test_rows: Annotated[int, typer.Option(min=1, help="generated test rows of each kind")] = 200,
    nli: Annotated[list[str] | None, typer.Option(help="NLI rows for text pairs; default: the sample set")] = None,
    columns: Columns = None,
    label: Labels = None,
    base: Annotated[
        str | None, typer.Option(help="a pretrained Qwen2-VL, or poly-mini; default: a small random one")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="rows of a step; default: the recipe's")] = None,
    learning_rate: Annotated[float | None, typer.Option(callback=positive)] = None,
    train: Annotated[list[str] | None, typer.Option(help="rows of mixed tasks instead of generated ones")] = None,
    evaluation: Annotated[list[str] | None, typer.Option("--eval", help="held-out rows for --train")] = None,
    skip_bad_images: SkipBadImages = False,
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
    else:
        refuse(context, "without --train", "skip_bad_images")
    if not train and not nli:
        refuse(context, "without --nli or --train", "label", "columns")
    (found,) = roles(columns, task_roles() if train else NLI_ROLES)
    names = pairs("--label", label)
    arguments = training_options(None, None, bf16, use_device(device), False)
    if batch_size is not None:
        arguments |= {"per_device_train_batch_size": batch_size, "gradient_accumulation_steps": 1}
    if learning_rate is not None:
        arguments["learning_rate"] = learning_rate

    one_bar(context)
    from st_vi.data import split_by_task
    from st_vi.data.sources import nli_rows, say_what_is_in_both, task_rows
    from st_vi.recipes.ablation.report import graph_objects, headline, plot, summarise, table
    from st_vi.recipes.ablation.run import ablate, read_results
    from st_vi.recipes.ablation.study import generated_study, study_of_rows

    graph_objects()
    results = output / "results.jsonl"
    if not table_only:
        if train:
            bad_image: Literal["error", "skip"] = "skip" if skip_bad_images else "error"
            rows_of, held_out = (task_rows(side, found, bad_image=bad_image)[0] for side in (train, evaluation or ()))
            say_what_is_in_both(rows_of, held_out)
            study = study_of_rows(split_by_task(rows_of), split_by_task(held_out), output, steps, base)
        else:
            (texts,) = nli_rows(nli, columns=found, labels=names) if nli else [None]
            study = generated_study(output, steps, rows, test_rows, nli=texts, base=base)
        study = replace(study, arguments={**study.arguments, **arguments})
        with interruptible(lambda: f"run the same command to resume; finished runs are kept in {results}"):
            for result in ablate(study, results, range(seeds), variant):
                typer.echo(f"{result['variant']}, seed {result['seed']}: {headline(result)}", err=True)
    summaries = summarise(read_results(results))
    (output / "table.md").write_text(table(summaries) + "\n", encoding="utf-8")
    typer.echo(table(summaries))
    plot(summaries).write_html(output / "plot.html")
    typer.echo(f"Saved in {output}: results.jsonl, table.md, plot.html")

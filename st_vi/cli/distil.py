"""``python -m st_vi trim`` and ``distill encoder``: a small model from a large one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from st_vi.cli.common import NLI_ROLES, interruptible, rows_with, texts_of
from st_vi.cli.options import Columns, Labels, Seed, folder, pairs, refuse, roles
from st_vi.cli.quiet import one_bar
from st_vi.files.folders import alone_in

QUESTIONS = ("anchor", "positive", "document")


def trim(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="a multilingual encoder or SentenceTransformer: a Hub id or a folder")],
    texts: Annotated[
        list[str], typer.Argument(help="rows of texts: .jsonl, .csv, .tsv, .xlsx, .txt, .parquet or a Hub id")
    ],
    output: Annotated[Path, typer.Option(help="new or empty folder for the trimmed model", parser=folder)],
    column: Annotated[str, typer.Option(help="column of the texts")] = "text",
    max_pieces: Annotated[int | None, typer.Option(min=1, help="maximum number of pieces")] = None,
    min_count: Annotated[int, typer.Option(min=1, help="keep pieces that occur at least this often")] = 1,
    keep: Annotated[
        list[str] | None, typer.Option(help="text whose pieces are kept, such as a prompt; repeatable")
    ] = None,
    any_language: Annotated[bool, typer.Option(help="do not check that the texts are Vietnamese")] = False,
) -> None:
    """Trim the vocabulary of a model to the pieces used in texts. Prints one JSON object."""
    _check_empty(output)
    one_bar(context)
    from st_vi.hub import load
    from st_vi.vocabulary import trim_vocabulary

    encoder, rows = load(model), texts_of(texts, column)
    report = trim_vocabulary(
        encoder, rows, max_pieces=max_pieces, min_count=min_count, keep=keep or (), vietnamese=not any_language
    )
    with (
        interruptible(lambda: f"take away {output}, which is not complete, and run the same command again"),
        alone_in(output),
    ):
        _check_empty(output)  # again: another run may have been faster
        encoder.save_pretrained(str(output))
    typer.echo(report, err=True)
    typer.echo(json.dumps(report.as_dict(), indent=2))


def _check_empty(output: Path) -> None:
    if output.is_dir() and any(output.iterdir()):
        raise ValueError(f"{output} is not an empty folder: use another --output, or take away what is there")


def distill(
    context: typer.Context,
    teacher: Annotated[str, typer.Option(help="teacher model: a Hub id or a folder")],
    documents: Annotated[list[str], typer.Option(help="paragraphs with title, text, section or subject; repeatable")],
    output: Annotated[
        Path, typer.Option(help="folder for the student, its stages and the teacher's vectors", parser=folder)
    ],
    share: Annotated[list[float] | None, typer.Option(help="share of each --documents; repeatable")] = None,
    nli: Annotated[list[str] | None, typer.Option(help="NLI rows in addition to the sample set; repeatable")] = None,
    label: Labels = None,
    columns: Columns = None,
    questions: Annotated[
        list[str] | None, typer.Option(help="rows with anchor, positive, document, added to the sample set; repeatable")
    ] = None,
    texts: Annotated[list[str] | None, typer.Option(help="rows with texts in everyday language; repeatable")] = None,
    layers: Annotated[str, typer.Option(help="teacher layers to keep, from 0")] = "2,5,8,11",
    max_pieces: Annotated[int, typer.Option(min=1, help="vocabulary size of the student")] = 14_300,
    prompt: Annotated[str, typer.Option(help="prompt of the teacher")] = "query: ",
    num_texts: Annotated[int, typer.Option(min=1, help="texts of a stage")] = 250_000,
    num_questions: Annotated[int, typer.Option(min=1, help="questions of a stage")] = 13_000,
    num_contradictions: Annotated[int, typer.Option(min=0, help="contradictions of a stage")] = 2_500,
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option(help="continue an earlier run in --output")] = False,
) -> None:
    """Distil a small encoder from a large one, in four stages: sentences, retrieval, NLI, and all three together."""
    if not nli:
        refuse(context, "without --nli", "label")
    given = (("title", "text", "section", "subject"), QUESTIONS if questions else (), NLI_ROLES if nli else ())
    of_documents, of_questions, of_nli = roles(columns, *given)

    one_bar(context)
    from datasets import concatenate_datasets

    from st_vi.data import sample_nli
    from st_vi.data.sources import nli_rows
    from st_vi.recipes.distil.encoder import distill_encoder, sample_questions

    try:
        numbers = [int(layer) for layer in layers.split(",")]
    except ValueError:
        raise ValueError(f"--layers must be numbers such as 2,5,8,11, got {layers!r}") from None
    own = sample_nli("train").select_columns(["premise", "hypothesis", "label"])
    names = pairs("--label", label)
    further = [rows_with(source, *QUESTIONS, named=of_questions) for source in questions or []]
    with interruptible(lambda: "run the same command with --resume to continue"):
        distill_encoder(
            teacher,
            [rows_with(source, "title", "text", named=of_documents) for source in documents],
            output,
            nli=concatenate_datasets([own, *nli_rows(nli, columns=of_nli, labels=names)]) if nli else own,
            questions=concatenate_datasets([sample_questions(), *further]),
            texts=texts_of(texts, of_documents.get("text", "text")) if texts else (),
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

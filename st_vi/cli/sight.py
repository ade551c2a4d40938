"""The command ``python -m st_vi distill vipolyqwen``: a small model that reads and sees, from a text encoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from st_vi.cli.common import interruptible, texts_of
from st_vi.cli.options import Columns, Seed, folder, roles
from st_vi.cli.quiet import one_bar
from st_vi.files.lines import on_disk
from st_vi.text import is_blank

if TYPE_CHECKING:
    from st_vi.recipes.sight.seeing import Asked, Named

NAMED_ROLES = ("name", "keywords")
ASKED_ROLES = ("question", "answers", "correct")


def distill_vipolyqwen_command(
    context: typer.Context,
    documents: Annotated[list[str], typer.Option(help="paragraphs with title, text, section or subject; repeatable")],
    output: Annotated[
        Path, typer.Option(help="folder for the model, its stages and the teacher's vectors", parser=folder)
    ],
    teacher: Annotated[str, typer.Option(help="a text encoder: an included one, a Hub id or a folder")] = "vi-mini",
    share: Annotated[list[float] | None, typer.Option(help="share of each --documents; repeatable")] = None,
    texts: Annotated[list[str] | None, typer.Option(help="rows with texts in everyday language; repeatable")] = None,
    named: Annotated[list[str] | None, typer.Option(help="rows image, name, keywords, such as emoji")] = None,
    asked: Annotated[list[str] | None, typer.Option(help="rows image, question, answers, correct (from 0)")] = None,
    columns: Columns = None,
    base: Annotated[str | None, typer.Option(help="a Qwen2-VL to start from; default: a new small one")] = None,
    num_texts: Annotated[int, typer.Option(min=1, help="texts from --documents")] = 290_000,
    num_paragraphs: Annotated[int, typer.Option(min=0, help="whole paragraphs in addition")] = 20_000,
    num_pairs: Annotated[int, typer.Option(min=8, help="questions with their paragraphs")] = 35_000,
    num_scenes: Annotated[int, typer.Option(min=1, help="images of shapes to draw")] = 6_000,
    text_steps: Annotated[int, typer.Option(min=1, help="steps of the first stage")] = 1_200,
    letters_steps: Annotated[int, typer.Option(min=1, help="steps of the second stage")] = 2_000,
    seeing_steps: Annotated[int, typer.Option(min=1, help="steps of the third stage")] = 2_500,
    reading_steps: Annotated[int, typer.Option(min=1, help="steps of the fourth stage")] = 44_000,
    deeper_steps: Annotated[int, typer.Option(min=1, help="steps of the fifth stage, with two more layers")] = 20_000,
    more_text_steps: Annotated[int, typer.Option(min=1, help="steps of the last stage, mostly on text")] = 11_500,
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option(help="continue an earlier run in --output")] = False,
    compiled: Annotated[bool, typer.Option("--compile", help="twice as fast on a CPU; needs a C++ compiler")] = False,
) -> None:
    """Make a viPolyQwen that has a text encoder's vectors: of texts, of drawn texts, and of what images show.

    A fifth of the named images and of the questions, by a hash of name or question, is kept for measuring.
    """
    found, of_questions = roles(columns, NAMED_ROLES, ASKED_ROLES)
    one_bar(context)
    from dataclasses import replace

    from st_vi.data import read_rows
    from st_vi.recipes.sight.distil import STAGES, distill_vipolyqwen

    steps = (text_steps, letters_steps, seeing_steps, reading_steps, deeper_steps, more_text_steps)
    with interruptible(lambda: "run the same command with --resume to continue"):
        distill_vipolyqwen(
            teacher,
            lambda: [read_rows(source) for source in documents],
            output,
            shares=share,
            texts=texts_of(texts, "text") if texts else (),
            named=[row for source in named or [] for row in named_rows(source, found)],
            asked=[row for source in asked or [] for row in asked_rows(source, of_questions)],
            base=base,
            num_texts=num_texts,
            num_paragraphs=num_paragraphs,
            num_pairs=num_pairs,
            num_scenes=num_scenes,
            stages=[replace(stage, steps=count) for stage, count in zip(STAGES, steps, strict=True)],
            seed=seed,
            resume=resume,
            compiled=compiled,
            progress=lambda message: typer.echo(message, err=True),
        )
    typer.echo(f"Saved in {output / 'model'}. Load it with st_vi.load({str(output / 'model')!r}).")


def named_rows(source: str, columns: Mapping[str, str]) -> list[Named]:
    """Images with names, those that are kept for measuring left out."""
    from st_vi.data.values import shown
    from st_vi.inputs.kinds import is_missing
    from st_vi.recipes.sight.seeing import Named, for_testing

    found = []
    for number, file, row in _rows(source, ("name",), columns):
        keywords = [] if is_missing(row.get("keywords")) else row["keywords"]
        names = [row["name"], *(keywords if isinstance(keywords, list) else [None])]
        if not _are_texts(names):
            raise ValueError(
                f"{source}, row {number}: expected a text as name and a list of texts as keywords, got "
                f"{shown(row['name'])} and {shown(keywords)}"
            )
        if not for_testing(names[0]):
            found.append(Named(file, tuple(dict.fromkeys(names))))
    return found


def asked_rows(source: str, columns: Mapping[str, str]) -> list[Asked]:
    """Questions about images, those that are kept for measuring and those without an image left out."""
    from st_vi.data.values import shown
    from st_vi.recipes.sight.seeing import Asked, for_testing

    found = []
    for number, file, row in _rows(source, ASKED_ROLES, columns):
        answers, right = row["answers"], row["correct"]
        if not isinstance(answers, list) or not _are_texts([row["question"], *answers]):
            raise ValueError(
                f"{source}, row {number}: expected a text as question and a list of texts as answers, got "
                f"{shown(row['question'])} and {shown(answers)}"
            )
        if type(right) is not int or not 0 <= right < len(answers):
            raise ValueError(f"{source}, row {number}: correct must be a place in the {len(answers)} answers, from 0")
        others = tuple(answer for place, answer in enumerate(answers) if place != right)
        if not for_testing(row["question"]):
            found.append(Asked(file, row["question"], answers[right], others))
    return found


def _are_texts(values: list[Any]) -> bool:
    return all(isinstance(value, str) and not is_blank(value) for value in values)


def _rows(source: str, wanted: tuple[str, ...], columns: Mapping[str, str]) -> Iterator[tuple[int, Path, Any]]:
    """Number, image and values of every row with an image; images lie beside the file or in ``images``."""
    from st_vi.data import read_rows
    from st_vi.data.sources import renamed
    from st_vi.data.values import shown
    from st_vi.inputs.kinds import is_missing
    from st_vi.inputs.pictures import open_image

    rows = renamed(read_rows(source), source, columns)
    for column in ("image", *wanted):
        if column not in rows.column_names:
            raise ValueError(f"{source}: missing column {column!r}; the columns are {rows.column_names}")
    beside = on_disk(source).parent
    for number, row in enumerate(rows):
        if is_missing(row["image"]):
            continue
        if not isinstance(row["image"], str):
            raise ValueError(f"{source}, row {number}: expected the name of an image, got {shown(row['image'])}")
        places = [place / row["image"] for place in (beside, beside / "images")]
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            raise ValueError(f"{source}, row {number}: there is no image {row['image']!r} in {beside}")
        try:
            open_image(file)
        except Exception as error:  # of many kinds
            raise ValueError(f"{source}, row {number}: {error}") from error
        yield number, file, row

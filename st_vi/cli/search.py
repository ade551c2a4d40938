"""The command ``python -m st_vi search``."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from st_vi.cli.common import interruptible, json_text
from st_vi.cli.options import Device, LoadBF16, folder, loading_options, refuse, use_device
from st_vi.cli.quiet import one_bar
from st_vi.files.cache import cache_folder
from st_vi.files.lines import on_disk
from st_vi.text import is_blank, is_unicode

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from st_vi.encoding.search.index import Found, SearchIndex, Side

_WIDTH = 300  # characters of a passage that are shown


def search(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(metavar="FILE_OR_FOLDER", help=".jsonl, .csv, .tsv, .xlsx, .parquet, .txt, .md; or images"),
    ],
    query: Annotated[str | None, typer.Argument(help="the question; if omitted, prompts for questions")] = None,
    images: Annotated[bool, typer.Option("--images", help="find images in a folder instead of passages")] = False,
    model: Annotated[
        str | None, typer.Option(help="an included model, a Hub id or a folder; default: vi-mini, poly-mini for images")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="number of results")] = 10,
    dense: Annotated[bool, typer.Option(help="--no-dense: search by words only, without a model")] = True,
    words: Annotated[bool, typer.Option(help="--no-words: search by vectors only")] = True,
    column: Annotated[str | None, typer.Option(help="column of tables; default: text, or the longest texts")] = None,
    prompt_name: Annotated[str | None, typer.Option(help="name of the prompt for questions")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON array per question")] = False,
    index: Annotated[
        Path | None, typer.Option(help="folder for vectors; default: .st_vi beside the files", parser=folder)
    ] = None,
    bf16: LoadBF16 = None,
    device: Device = None,
) -> None:
    """Find the passages in files that answer a question, or the images in a folder that show what is asked for.

    Questions may be typed with or without diacritics. The first run encodes the files and caches the vectors; later
    runs encode only what is new.
    """
    if not dense and not words:
        raise ValueError("--no-dense and --no-words exclude each other")
    if query is not None:
        _check(query)
    if images:
        refuse(context, "with --images", "dense", "words", "column")
    if not dense:
        refuse(context, "with --no-dense", "model", "prompt_name", "index", "bf16", "device")
    if is_blank(source):
        raise ValueError("the name of the file or folder is empty")
    files = on_disk(source)
    options = loading_options(bf16, use_device(device))
    one_bar(context)
    from st_vi.encoding.search import SearchIndex
    from st_vi.hub import load
    from st_vi.inputs.prompts import prompt_of

    def encoder(included: str) -> SentenceTransformer:
        loaded = load(model or included, **options)
        prompt_of(loaded, prompt_name=prompt_name)  # an unknown name is an error now, not when all files are encoded
        return loaded

    place = index or _beside(files)
    with interruptible(lambda: f"run the same command again; vectors are kept in {place}" if dense else "run it again"):
        if images:
            ask = _pictures(files, encoder("poly-mini"), place, top, prompt_name, as_json)
        else:
            found = SearchIndex.of_files(
                files,
                encoder("vi-mini") if dense else None,
                kept_in=place,
                column=column,
                query_prompt_name=prompt_name,
                show_progress_bar=True,
            )
            typer.echo(f"{len(found.passages):,} passage{'s' * (len(found.passages) > 1)}", err=True)
            ask = _asked(found, top, "both" if dense and words else "vectors" if dense else "words", as_json)
        _answer(ask, query)


def _answer(ask: Callable[[str], None], query: str | None) -> None:
    for question in _questions() if query is None else [query]:
        ask(question)


def _check(question: str) -> None:
    if is_blank(question):
        raise ValueError("the question is empty")
    if not is_unicode(question) or "\0" in question:  # UTF-16 has it
        raise ValueError(f"the question {question!r} is not in the encoding of this console, mostly UTF-8")


def _pictures(
    folder: Path, model: SentenceTransformer, place: Path, top: int, prompt_name: str | None, as_json: bool
) -> Callable[[str], None]:
    """Asks for images."""
    from st_vi.encoding.search import PictureIndex

    found = PictureIndex(folder, model, kept_in=place, show_progress_bar=True)
    typer.echo(f"{len(found.files):,} image{'s' * (len(found.files) > 1)}", err=True)

    def ask(query: str) -> None:
        results = found.search(query, top, prompt_name)
        if as_json:
            typer.echo(json_text([asdict(one) for one in results]))
            return
        for number, one in enumerate(results, 1):
            typer.echo(f"{number}. {one.score:.2f}  {one.file}")

    return ask


def _asked(index: SearchIndex, top: int, side: Side, as_json: bool) -> Callable[[str], None]:
    def ask(query: str) -> None:
        results = index.search(query, top, side)
        if as_json:
            typer.echo(json_text([asdict(found) for found in results]))
            return
        if not results:
            typer.echo("nothing found")
        for number, found in enumerate(results, 1):
            typer.echo(_shown(number, found))

    return ask


def _shown(number: int, found: Found) -> str:
    passage = found.passage
    title = f"{passage.title}: " if passage.title else ""
    text = passage.text if len(passage.text) <= _WIDTH else passage.text[:_WIDTH].rsplit(" ", 1)[0] + " …"
    why = [f"{name} {rank}" for name, rank in (("meaning", found.by_vectors), ("words", found.by_words)) if rank]
    return f"{number}. {title}{text}\n   {passage.file}, {passage.place}; found by {', '.join(why)}"


def _questions() -> Iterator[str]:
    """The lines of the input that are not blank. Where they are typed, a blank one is the end."""
    if sys.stdin is None:  # closed
        raise ValueError("there is no question, and no input to read one from")
    typed = sys.stdin.isatty()
    while True:
        if typed:
            typer.echo("? ", nl=False, err=True)
        try:
            line = sys.stdin.readline() if typed else decoded(sys.stdin.buffer.readline())
        except KeyboardInterrupt:
            return
        if not line or (typed and is_blank(line)):
            return
        if not is_blank(line):
            _check(line)
            yield line.strip()


def decoded(line: bytes) -> str:
    """A line of a file or pipe: UTF-8 if it is valid, whatever letters the console has; otherwise in those."""
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError:
        return line.decode(sys.stdin.encoding, "surrogateescape")


def _beside(source: Path) -> Path:
    """A hidden folder beside the searched files, or in the user's cache if that is not writable."""
    folder = source if source.is_dir() else source.parent
    if os.access(folder, os.W_OK):
        return folder / ".st_vi" / (source.name if source.is_file() else "all")
    return cache_folder("search") / hashlib.sha256(str(source.resolve()).encode()).hexdigest()[:16]

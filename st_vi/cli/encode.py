"""``python -m st_vi encode``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from st_vi.cli.common import interruptible
from st_vi.cli.options import Device, LoadBF16, folder, loading_options, refuse, use_device
from st_vi.cli.quiet import one_bar


def encode(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="a Hub id or a folder")],
    rows: Annotated[
        str, typer.Argument(metavar="INPUT", help="rows: .jsonl, .csv, .tsv, .xlsx, .txt, .parquet or a Hub id")
    ],
    output: Annotated[Path, typer.Argument(help="folder for Parquet files with id and embedding", parser=folder)],
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
    bf16: LoadBF16 = None,
    device: Device = None,
    skip_bad_rows: Annotated[bool, typer.Option(help="skip and list rows that cannot be encoded")] = False,
    part: Annotated[
        str | None, typer.Option(help="k/n: only every n-th file, from the k-th, for n processes on one folder")
    ] = None,
) -> None:
    """Encode a corpus into Parquet files, two shards in memory at a time. Resumable."""
    if not chunk:
        refuse(context, "without --chunk", "chunk_tokens")
    encoder_options = loading_options(bf16, use_device(device))

    one_bar(context)
    from st_vi.encoding import encode_corpus
    from st_vi.hub import load

    encoder = load(model, **encoder_options)
    with interruptible(lambda: f"run the same command to resume; finished shards are kept in {output}"):
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
            part=_part(part),
            show_progress_bar=True,
        )
    done, *notes = str(result).splitlines()
    typer.echo("\n".join([f"{done} in {output}", *notes]))


def _part(value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    part, _, parts = value.partition("/")
    if not part.isdecimal() or not parts.isdecimal():
        raise typer.BadParameter(f"--part must be two numbers such as 1/4, got {value!r}")
    return int(part), int(parts)

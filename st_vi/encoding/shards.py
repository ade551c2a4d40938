"""Files of a corpus: shards that say of which rows they are made, and the manifest of them all."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from st_vi.encoding.identity import FINGERPRINT_BYTES
from st_vi.encoding.limits import Cut

MANIFEST = "manifest.json"
LAYOUT = 2
"""Of the folder; goes up when shards of an earlier version can no longer be gone on with."""


@dataclass(frozen=True)
class Notes:
    """What is known of a shard beside its vectors.

    Attributes:
        fingerprints: One for each row of the corpus that went into the shard, skipped ones too.
        skipped: What was wrong with bad rows, by their number in the corpus.
        cut: Texts that the model did not read to their ends.
    """

    fingerprints: tuple[bytes, ...] = ()
    skipped: dict[int, str] = field(default_factory=dict)
    cut: Cut = field(default_factory=Cut)

    def __add__(self, other: Notes) -> Notes:
        return Notes(self.fingerprints + other.fingerprints, self.skipped | other.skipped, self.cut + other.cut)

    def to_metadata(self) -> dict[str, str]:
        """As Parquet has it."""
        return {
            "st_vi.rows": base64.b64encode(b"".join(self.fingerprints)).decode(),
            "st_vi.skipped": json.dumps(self.skipped),
            "st_vi.cut": json.dumps([self.cut.texts, self.cut.read, self.cut.tokens]),
        }

    @classmethod
    def of(cls, metadata: Mapping[bytes, bytes]) -> Notes:
        """From what Parquet has."""
        rows = base64.b64decode(metadata[b"st_vi.rows"])
        return cls(
            tuple(rows[i : i + FINGERPRINT_BYTES] for i in range(0, len(rows), FINGERPRINT_BYTES)),
            {int(number): problem for number, problem in json.loads(metadata[b"st_vi.skipped"]).items()},
            Cut(*json.loads(metadata[b"st_vi.cut"])),
        )


def shard_path(folder: Path, number: int) -> Path:
    """Where a shard is, or will be."""
    return folder / f"shard-{number:05d}.parquet"


def shard_notes(path: Path) -> Notes:
    """What a shard says of itself.

    Raises:
        ValueError: It says nothing, or the file is broken.
    """
    try:
        return Notes.of(pq.read_schema(path).metadata or {})
    except (KeyError, ValueError, pa.ArrowException) as error:
        raise ValueError(f"{path} is no shard that encode_corpus wrote: delete it to have it made again") from error


def check_rows(path: Path, stored: Sequence[bytes], now: Sequence[bytes], first: int) -> None:
    """Refuse rows that are not those of the shard, or more than them at its end.

    Raises:
        ValueError: The shard was made of other rows; names the first of them.
    """
    for place, (before, after) in enumerate(zip(stored, now, strict=False)):
        if before != after:
            problem = f"row {first + place} is not what it was"
            break
    else:
        if len(stored) <= len(now):
            return
        problem = f"it has {len(stored)}, and now there are {len(now)}"
    raise ValueError(
        f"{path} was made of other rows: {problem}. Delete this file to have its rows encoded again, or give another "
        "output"
    )


def check_manifest(folder: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a folder that was begun in another way.

    Raises:
        ValueError: Names what was different.
    """
    manifest = folder / MANIFEST
    if not manifest.exists():
        if any(folder.glob("shard-*.parquet")):
            raise ValueError(f"{folder} has shards without {MANIFEST}: nobody knows what made them")
        return
    try:
        before = json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{manifest} cannot be read: {error}") from error
    if not isinstance(before, dict) or before.get("layout") != settings["layout"]:
        raise ValueError(f"{folder} was begun by another version of st_vi. Give another output, or delete this one.")
    changed = [f"{name} {before.get(name)!r}, now {now!r}" for name, now in settings.items() if before.get(name) != now]
    if changed:
        raise ValueError(
            f"{folder} was begun with another {'; another '.join(changed)}. Give another output, or delete this one."
        )


def save_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the manifest, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
    with _complete(folder / MANIFEST) as file:
        file.write(text.encode())


def save_shard(path: Path, table: pa.Table, notes: Notes) -> None:
    """Write a shard, whole or not at all."""
    table = table.replace_schema_metadata(notes.to_metadata())
    # A dictionary of floats would be built, found to be too large and thrown away.
    words = [column.name for column in table.schema if column.name not in ("id", "start", "end", "embedding")]
    with _complete(path) as file, pq.ParquetWriter(file, table.schema, use_dictionary=words) as writer:
        if table.num_rows:  # a group of no rows is more than datasets can read
            writer.write_table(table)


def read_shard(path: Path) -> pa.Table:
    """The rows of a shard without its notes."""
    return pq.read_table(path).replace_schema_metadata(None)


@contextmanager
def _complete(path: Path) -> Iterator[BinaryIO]:
    """A file that has its name when all of it is on the disk, and not before."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:  # a full disk; Python names the file only where opening it fails
        todo = f"{error.strerror}. The shards before it are complete; make room and call this again"
        raise OSError(error.errno, todo, str(path)) from error

"""Shard files of an encoded corpus, and their manifest."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from st_vi.identity import FINGERPRINT_BYTES

MANIFEST = "manifest.json"
LAYOUT = 2
"""Version of the folder layout; increased when older shards can no longer be resumed."""


@dataclass(frozen=True)
class Cut:
    """Truncated texts: their number, their tokens, and how many of these the model read."""

    texts: int = 0
    read: int = 0
    tokens: int = 0

    def __add__(self, other: Cut) -> Cut:
        return Cut(self.texts + other.texts, self.read + other.read, self.tokens + other.tokens)


@dataclass(frozen=True)
class Notes:
    """Metadata of a shard.

    Attributes:
        fingerprints: One per row of the shard, including skipped rows.
        skipped: Row number in the corpus to the reason why it was skipped.
        cut: Truncated texts.
    """

    fingerprints: tuple[bytes, ...] = ()
    skipped: dict[int, str] = field(default_factory=dict)
    cut: Cut = field(default_factory=Cut)

    def __add__(self, other: Notes) -> Notes:
        return Notes(self.fingerprints + other.fingerprints, self.skipped | other.skipped, self.cut + other.cut)

    def to_metadata(self) -> dict[str, str]:
        """Convert to Parquet metadata."""
        return {
            "st_vi.rows": base64.b64encode(b"".join(self.fingerprints)).decode(),
            "st_vi.skipped": json.dumps(self.skipped),
            "st_vi.cut": json.dumps([self.cut.texts, self.cut.read, self.cut.tokens]),
        }

    @classmethod
    def of(cls, metadata: Mapping[bytes, bytes]) -> Notes:
        """Read from Parquet metadata."""
        rows = base64.b64decode(metadata[b"st_vi.rows"])
        return cls(
            tuple(rows[i : i + FINGERPRINT_BYTES] for i in range(0, len(rows), FINGERPRINT_BYTES)),
            {int(number): problem for number, problem in json.loads(metadata[b"st_vi.skipped"]).items()},
            Cut(*json.loads(metadata[b"st_vi.cut"])),
        )


def shard_path(folder: Path, number: int) -> Path:
    """Path of a shard."""
    return folder / f"shard-{number:05d}.parquet"


def shard_numbers(folder: Path) -> list[int]:
    """The numbers of the shards in a folder, in order."""
    names = [path.stem.removeprefix("shard-") for path in folder.glob("shard-*.parquet")]
    return sorted(int(name) for name in names if name.isdecimal())


def shard_notes(path: Path) -> Notes:
    """Read the metadata of a shard."""
    return Notes.of(shard_schema(path).metadata)


def shard_schema(path: Path) -> pa.Schema:
    """Read the columns of a shard, and its metadata."""
    try:
        schema = pq.read_schema(path)
        Notes.of(schema.metadata or {})
        return schema
    except (KeyError, ValueError, OSError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno:  # of the disk; a parser's has no number
            raise
        raise ValueError(f"{path} is no shard that encode_corpus wrote: delete it to recreate it") from error


def check_rows(path: Path, stored: Sequence[bytes], now: Sequence[bytes], first: int) -> None:
    """Check that the rows begin with those of the shard; an error names the first that does not."""
    for place, (before, after) in enumerate(zip(stored, now, strict=False)):
        if before != after:
            problem = f"row {first + place} is not what it was"
            break
    else:
        if len(stored) <= len(now):
            return
        problem = f"it has {len(stored)}, and now there are {len(now)}"
    raise ValueError(
        f"{path} was made of other rows: {problem}. Delete this file to re-encode its rows, or use another "
        "output folder"
    )


def check_manifest(folder: Path, settings: Mapping[str, Any]) -> None:
    """Check that a folder was started with the same settings; an error names those that differ."""
    manifest = folder / MANIFEST
    if not manifest.exists():
        if any(folder.glob("shard-*.parquet")):
            raise ValueError(f"{folder} has shards without {MANIFEST}, so their model and settings are unknown")
        return
    try:
        before = json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{manifest} cannot be read: {error}") from error
    if not isinstance(before, dict) or before.get("layout") != settings["layout"]:
        raise ValueError(
            f"{folder} was begun by another version of st_vi. Use another output folder, or delete this one."
        )
    changed = [f"{name} {before.get(name)!r}, now {now!r}" for name, now in settings.items() if before.get(name) != now]
    if changed:
        raise ValueError(
            f"{folder} was begun with another {'; another '.join(changed)}. "
            "Use another output folder, or delete this one."
        )


def check_writable(folder: Path) -> None:
    """Check that files can be written into a folder that may not be there yet, before a model has worked for it."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not os.access(there, os.W_OK):
        raise PermissionError(f"{folder} cannot be written: no permission in {there}")


def begin(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings into a folder, of which the shards are no longer complete.

    It is an error if another run has begun the folder with other settings in the meantime.
    """
    if not (folder / MANIFEST).exists():
        try:
            save_manifest(folder, settings, new=True)
            return
        except FileExistsError:  # another run was faster
            pass
    check_manifest(folder, settings)
    save_manifest(folder, settings)


def save_manifest(folder: Path, content: Mapping[str, Any], new: bool = False) -> None:
    """Write the manifest atomically; a FileExistsError says that another run has written what should be `new`."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
    try:
        with _complete(folder / MANIFEST, new) as file:
            file.write(text.encode())
    except FileExistsError:
        if new:
            raise  # else an equal run has just finished, and what it wrote stands


def remove_all(folder: Path, shards: int) -> None:
    """Remove shards that have no row, and their manifest."""
    for path in (folder / MANIFEST, *(shard_path(folder, number) for number in range(shards))):
        path.unlink(missing_ok=True)
    with suppress(OSError):  # it has other files
        folder.rmdir()


def remove_unfinished(folder: Path) -> None:
    """Remove what runs that were killed left behind."""
    for file in folder.glob(".*.part"):
        with suppress(OSError):  # of another run that writes it right now, on Windows
            file.unlink()


def save_shard(path: Path, table: pa.Table, notes: Notes, new: bool = False) -> None:
    """Write a shard atomically; a FileExistsError says that another run has written what should be `new`."""
    table = table.replace_schema_metadata(notes.to_metadata())
    # No dictionary: one of floats would be built and then discarded as too large.
    words = [column.name for column in table.schema if column.name not in ("id", "start", "end", "embedding")]
    with _complete(path, new) as file, pq.ParquetWriter(file, table.schema, use_dictionary=words) as writer:
        if table.num_rows:  # datasets cannot read an empty row group
            writer.write_table(table)


def read_shard(path: Path) -> pa.Table:
    """The rows of a shard, without its metadata."""
    return pq.read_table(path).replace_schema_metadata(None)


@contextmanager
def _complete(path: Path, new: bool) -> Iterator[BinaryIO]:
    """A file that appears under its name only when completely written; other runs may write it at the same time."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        (_rename if new else os.replace)(temporary, path)
    except FileExistsError:
        raise
    except OSError as error:  # a full disk; Python names the file only if opening it fails
        if isinstance(error, FileNotFoundError) and path.exists():  # another run has finished, and removed ours
            raise FileExistsError(error.errno, error.strerror, str(path)) from error
        todo = f"{error.strerror or error}. The shards before it are complete; make room and call this again"
        raise OSError(error.errno, todo, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _rename(old: Path, new: Path) -> None:
    """Like `os.replace`, but an error if the new name is taken, also by what appears at this moment."""
    try:
        os.link(old, new)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        os.replace(old, new)

"""Folders in which one process works at a time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

_UNFINISHED = ".unfinished-"


@contextmanager
def alone_in(folder: str | Path) -> Iterator[None]:
    """Create a folder if needed, and keep it for this process in the block, so that two runs never mix their files.

    The lock is on the folder itself and ends with the process, however that ends. There is none on Windows and on file
    systems without `flock`. A new folder is removed if it is still empty after the block.

    Raises:
        ValueError: Another run is at work in the folder.

    Example:
        >>> import tempfile
        >>> from st_vi.files.folders import alone_in
        >>> with tempfile.TemporaryDirectory() as folder, alone_in(folder):
        ...     with alone_in(folder):
        ...         pass
        Traceback (most recent call last):
        ValueError: another run is at work in ...: wait for it, or use another folder
    """
    folder = Path(folder)
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = _locked(folder)
    if lock is None:
        raise ValueError(f"another run is at work in {folder}: wait for it, or use another folder")
    try:
        yield
    finally:
        if new:
            with suppress(OSError):  # it has files
                folder.rmdir()
        _unlock(lock)


@contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`, to be filled and renamed to it, so that it is there completely or not at all.

    What is left of it is removed after the block, and what killed processes left is removed before.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f"{_UNFINISHED}*"):
        _remove_if_left(left)
    # Not by `tempfile`: other users, as that of a server in a container, read what was made for them.
    found = folder.with_name(f"{_UNFINISHED}{uuid4().hex}")
    with alone_in(found):
        try:
            yield found
        finally:
            shutil.rmtree(found, ignore_errors=True)


def _remove_if_left(folder: Path) -> None:
    """Remove a folder unless a process is at work in it, which is known only where there are locks."""
    with suppress(OSError):
        lock = _locked(folder)
        if lock is not None and lock >= 0:
            # An empty one may be so new that its process has not locked it yet.
            if any(folder.iterdir()):
                shutil.rmtree(folder, ignore_errors=True)
            _unlock(lock)


def _locked(folder: Path) -> int | None:
    """A descriptor that holds the lock of a folder; None if another has it, -1 if there are no locks here."""
    if fcntl is None:
        return -1
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:  # this file system has none
        os.close(descriptor)
        return -1
    return descriptor


def _unlock(descriptor: int) -> None:
    if descriptor >= 0:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing is not enough where a process that was forked lives on
        os.close(descriptor)

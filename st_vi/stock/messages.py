"""How Python shows warnings and messages."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Show warnings without the place in the code and its line, which say nothing to the user of a command.

    Example:
        >>> import warnings
        >>> from st_vi.stock.messages import warnings_in_one_line
        >>> with warnings_in_one_line():
        ...     warnings.formatwarning("two\\nlines", UserWarning, "file.py", 7)
        'warning: two lines\\n'
    """
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"warning: {' '.join(str(message).split())}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


@contextmanager
def without_message(name: str, begin: str) -> Iterator[None]:
    """Leave out the messages of the logger of this name that begin so.

    Example:
        >>> import logging
        >>> from st_vi.stock.messages import without_message
        >>> with without_message("library", "not of use"):
        ...     logging.getLogger("library").warning("not of use here")
    """

    def is_other(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(begin)

    logger = logging.getLogger(name)
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


class Messages(io.TextIOWrapper):
    """Standard error whose reader may go away, such as a terminal: a run goes on without its messages and bars."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        super().__init__(stream.buffer, stream.encoding, "backslashreplace", line_buffering=True)
        self.stream = stream  # would close the buffer when it is deleted

    def write(self, text: str) -> int:
        """Write the text, or drop it."""
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        """Write what is kept, or drop it."""
        with suppress(OSError):
            super().flush()


def open_streams() -> None:
    """Make standard output and error fit for a long run; letters that a console does not have are shown "\\u1eeb"."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file opened would take its place, and get messages into its content
            os.open(os.devnull, os.O_RDWR)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = Messages(sys.stderr)

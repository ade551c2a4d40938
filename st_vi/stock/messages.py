"""How Python shows warnings."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


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

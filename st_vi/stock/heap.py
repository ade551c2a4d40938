"""The heap of the C library."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache


def release_freed_memory() -> None:
    """Give freed memory back to the system, where the C library is glibc and would keep it.

    glibc keeps freed tensors of less than 32 MiB and does not always use their places again: of a batch of 65,536 rows,
    it kept 0.6 GiB. The call itself is quick, but memory that is used again has to be asked for again.

    Example:
        >>> from st_vi.stock.heap import release_freed_memory
        >>> release_freed_memory()
    """
    if trim := _malloc_trim():
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return None
    return trim

"""Which strings are text."""

from __future__ import annotations


def is_unicode(text: str) -> bool:
    """Whether a string can be written as UTF-8. One with half of a surrogate pair cannot: no tokenizer takes it.

    Example:
        >>> from st_vi.modules.unicode_text import is_unicode
        >>> is_unicode("Trời mưa."), is_unicode("Trời mưa." + chr(0xD83D))
        (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

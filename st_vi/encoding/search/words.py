"""Search by words: BM25 over syllables, with their diacritics and without."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from st_vi.text import comparison_key, strip_diacritics

_SYLLABLE = re.compile(r"\w+")


class WordIndex:
    """BM25 (Robertson et al., 1994, as the package bm25s computes it) over the syllables of some texts.

    A query that has diacritics is compared with the texts as they are written; one that has none ("thu tuc ly hon"),
    with the texts without theirs. Capital letters and the spelling of tone marks ("hòa", "hoà") do not matter.

    Args:
        texts: What to search.
        show_progress_bar: Whether to show one.

    Raises:
        ImportError: bm25s is not installed.

    Example:
        >>> from st_vi.encoding.search.words import WordIndex
        >>> words = WordIndex(["Thủ tục ly hôn", "Thuế nhà đất", "Giá vé xe buýt"])
        >>> int(words.scores("ly hon").argmax()), int(words.scores("thuế đất").argmax())
        (0, 1)
    """

    def __init__(self, texts: Sequence[str], show_progress_bar: bool = False) -> None:
        self._count = len(texts)
        written = [syllables(text) for text in texts]
        self._written = _bm25(written, show_progress_bar)
        self._stripped = _bm25([[strip_diacritics(word) for word in words] for words in written], show_progress_bar)

    def scores(self, query: str) -> np.ndarray:
        """The score (N,) of each text: 0 where it shares no syllable with the query."""
        words = syllables(query)
        has_diacritics = strip_diacritics(" ".join(words)) != " ".join(words)
        index = self._written if has_diacritics else self._stripped
        known = [word for word in words if word in index.vocab_dict]  # bm25s raises where there is none
        return index.get_scores(known) if known else np.zeros(self._count, dtype=np.float32)


def syllables(text: str) -> list[str]:
    """Lower-case syllables and numbers of a text, in the newer spelling of tone marks.

    Example:
        >>> from st_vi.encoding.search.words import syllables
        >>> syllables("Hoà giải, điều 12!") == syllables("hòa giải điều 12")
        True
    """
    return _SYLLABLE.findall(comparison_key(text, casefold=True))


def _bm25(corpus: list[list[str]], show_progress_bar: bool) -> Any:
    try:
        import bm25s
    except ImportError as error:
        raise ImportError('search by words needs bm25s: pip install "st-vi[search]"') from error
    index = bm25s.BM25()
    # A text without a syllable has none to index, and a corpus of such texts no vocabulary.
    index.index([words or [""] for words in corpus], show_progress=show_progress_bar)
    return index

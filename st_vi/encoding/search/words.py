"""BM25 over syllables, with and without diacritics."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from sys import intern
from typing import Any

import numpy as np

from st_vi.text import comparison_key, strip_diacritics

_SYLLABLE = re.compile(r"\w+")
_RARE = 0.1  # share of a syllable without diacritics among all that are equal to it without theirs


class WordIndex:
    """BM25 (Robertson et al., 1994, as implemented by bm25s) over the syllables of texts.

    A query without diacritics ("thu tuc ly hon") is compared with the texts without their diacritics. So is a single
    syllable of another query ("thủ tuc ly hôn") that the texts hardly ever write without. Case and the placement of
    tone marks ("hòa", "hoà") are ignored.

    Args:
        texts: Texts to search.

    Raises:
        ImportError: bm25s is not installed.

    Example:
        >>> from st_vi.encoding.search.words import WordIndex
        >>> words = WordIndex(["Thủ tục ly hôn", "Thuế nhà đất", "Giá vé xe buýt"])
        >>> int(words.scores("ly hon").argmax()), int(words.scores("thuế đất").argmax())
        (0, 1)
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._count = len(texts)
        # One string for each distinct syllable: a large corpus has thousands of copies of most.
        written = [[intern(word) for word in syllables(text)] for text in texts]
        self._written = _bm25(written)
        counts = Counter(chain.from_iterable(written))
        bare = {word: strip_diacritics(word) for word in counts}
        alike: Counter[str] = Counter()
        for word, count in counts.items():
            alike[bare[word]] += count
        self._plain = {word for word in counts if bare[word] == word and counts[word] >= _RARE * alike[word]}
        self._stripped = _bm25([[bare[word] for word in words] for words in written])

    def scores(self, query: str) -> np.ndarray:
        """BM25 score of each text, (N,); 0 for texts without a syllable of the query."""
        words = syllables(query)
        bare = [strip_diacritics(word) for word in words]
        plain = self._plain if bare != words else set()
        stripped = {word for word, other in zip(words, bare, strict=True) if word == other and word not in plain}
        scores = np.zeros(self._count, dtype=np.float32)
        for index, is_stripped in ((self._written, False), (self._stripped, True)):
            some = [word for word in words if (word in stripped) is is_stripped and word in index.vocab_dict]
            if some:  # bm25s raises if there is none
                scores += index.get_scores(some)
        return scores


def syllables(text: str) -> list[str]:
    """Lower-case syllables and numbers of a text, with tone marks in the newer placement."""
    return _SYLLABLE.findall(comparison_key(text, casefold=True))


def _bm25(corpus: list[list[str]]) -> Any:
    try:
        import bm25s
    except ImportError as error:
        raise ImportError('search by words needs bm25s: pip install "st-vi[search]"') from error
    if (logger := logging.getLogger("bm25s")).level == logging.DEBUG:  # it has set this itself
        logger.setLevel(logging.NOTSET)
    index = bm25s.BM25()
    # Texts without syllables are not indexed; a corpus of only such texts has no vocabulary.
    index.index([words or [""] for words in corpus], show_progress=False)
    return index

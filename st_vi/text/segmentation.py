"""Word segmentation: the syllables of each Vietnamese word joined, as PhoBERT needs them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from st_vi.text.normal import mend


def segment_words(text: str) -> str:
    """Join the syllables of each Vietnamese word by underscores, and put a space between words and marks.

    The segmenter, pyvi, knows words in composed letters. Words that are joined already stay joined.

    Example:
        >>> from st_vi.text.segmentation import segment_words
        >>> segment_words("Sinh viên đại học bách khoa.")
        'Sinh_viên đại_học bách_khoa .'
    """
    return segmenter()(mend(text))


@cache
def segmenter() -> Callable[[str], str]:
    """The function of pyvi that segments; it fails here, and not at the first text, where pyvi is missing."""
    try:
        from pyvi import ViTokenizer
    except ImportError as error:
        raise ImportError('Vietnamese word segmentation needs pyvi: pip install "st-vi[vi]"') from error
    return ViTokenizer.tokenize

"""A multilingual model cut to the pieces that one language uses: the rows of the others go, no vector moves."""

from st_vi.vocabulary.trim import Trimmed, check_vietnamese, trim_vocabulary, unwritable

__all__ = ["Trimmed", "check_vietnamese", "trim_vocabulary", "unwritable"]

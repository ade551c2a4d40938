"""Vocabulary trimming: reduces a multilingual model to the tokens of one language."""

from st_vi.vocabulary.trim import Trimmed, check_vietnamese, trim_vocabulary, unwritable

__all__ = ["Trimmed", "check_vietnamese", "trim_vocabulary", "unwritable"]

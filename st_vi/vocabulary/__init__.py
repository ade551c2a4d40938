"""Vocabulary trimming: reduces a multilingual model to the tokens of one language."""

from st_vi.vocabulary.trim import trim_vocabulary

__all__ = ["trim_vocabulary"]

"""Vietnamese text, without torch: normalisation, comparison, sentences, words and variants."""

from st_vi.text.normal import comparison_key, is_blank, is_unicode, mend, normalise, strip_diacritics

__all__ = ["comparison_key", "is_blank", "is_unicode", "mend", "normalise", "strip_diacritics"]

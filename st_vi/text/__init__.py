"""Vietnamese text, without torch: the form in which it is kept, and the key by which it is compared."""

from st_vi.text.normal import comparison_key, is_blank, is_unicode, mend, normalise, strip_diacritics

__all__ = ["comparison_key", "is_blank", "is_unicode", "mend", "normalise", "strip_diacritics"]

"""Vietnamese text, without torch."""

from st_vi.modules.unicode_text import is_unicode as is_unicode


def is_blank(text: str) -> bool:
    """Whether there is nothing to read: no character, or only invisible ones."""
    return not any(character.isprintable() and not character.isspace() for character in text)

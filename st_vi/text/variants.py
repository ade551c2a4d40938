"""Variants of a text as people type it: without diacritics, in lower case, with other tone marks, with typos."""

from __future__ import annotations

import re
import unicodedata
from random import Random

from st_vi.text.normal import TONES, strip_diacritics

# "hoà" and "hòa": where oa, oe and uy end a syllable, the tone stands on the last vowel (new) or on the first (old).
_OLD_TO_NEW = {
    unicodedata.normalize("NFC", first + tone) + last: first + unicodedata.normalize("NFC", last + tone)
    for first, last in ("oa", "oe", "uy")
    for tone in TONES
}
_OLD_TO_NEW |= {old.capitalize(): new.capitalize() for old, new in _OLD_TO_NEW.items()} | {
    old.upper(): new.upper() for old, new in _OLD_TO_NEW.items()
}
_NEW_TO_OLD = {new: old for old, new in _OLD_TO_NEW.items()}
_OLD, _NEW = (re.compile(rf"(?<![qQ])({'|'.join(forms)})(?!\w)") for forms in (_OLD_TO_NEW, _NEW_TO_OLD))


def move_tones(text: str) -> str:
    """Move tone marks to the newer place ("hòa" → "hoà"), or, if there are none to move, to the older one.

    Example:
        >>> from st_vi.text.variants import move_tones
        >>> move_tones("Khóa cửa, hòa nhạc"), move_tones("Khoá cửa"), move_tones("Quý Tỵ")
        ('Khoá cửa, hoà nhạc', 'Khóa cửa', 'Quý Tỵ')
    """
    moved = _OLD.sub(lambda match: _OLD_TO_NEW[match[1]], text)
    return moved if moved != text else _NEW.sub(lambda match: _NEW_TO_OLD[match[1]], text)


def slip(word: str, random: Random) -> str:
    """A word with a typo: two letters swapped, one left out, or one doubled. Short words stay unchanged."""
    if len(word) < 3:
        return word
    place, kind = random.randrange(len(word) - 1), random.random()
    if kind < 0.4:
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    return word[:place] + word[place + 1 :] if kind < 0.7 else word[: place + 1] + word[place:]


def vary(text: str, random: Random) -> str:
    """A random variant of how the text may be typed; its meaning stays.

    - 45 of 100: without diacritics, half of these in lower case;
    - 20: a fifth, a half or four fifths of its words without diacritics;
    - 15: in lower case;
    - 10: tones placed the other way (`move_tones`);
    - 10: a typo in every eighth word (`slip`).

    Args:
        text: A text in NFC.
        random: The source of chance; the same state gives the same variant.

    Example:
        >>> from random import Random
        >>> from st_vi.text.variants import vary
        >>> [vary("Trời mưa to ở Huế.", Random(seed)) for seed in (1, 2, 4)]
        ['Troi mua to o Hue.', 'rTời mưa to ở Huế.', 'troi mua to o hue.']
    """
    kind = random.random()
    if kind < 0.45:
        bare = strip_diacritics(text)
        return bare.lower() if random.random() < 0.5 else bare
    words = text.split(" ")
    if kind < 0.65:
        share = random.choice((0.2, 0.5, 0.8))
        return " ".join(strip_diacritics(word) if random.random() < share else word for word in words)
    if kind < 0.8:
        return text.lower()
    if kind < 0.9:
        return move_tones(text)
    for _ in range(max(1, len(words) // 8)):
        place = random.randrange(len(words))
        words[place] = slip(words[place], random)
    return " ".join(words)

"""Normalisation of Vietnamese: the form in which a text is stored, and the key by which two texts are compared.

The stored form changes only what no reader sees: composed letters, "Đ" for an eth, nothing invisible, single spaces.
The comparison key goes further: "Hòa" and "Hoà", "quý" and "quí" are one word to a reader, but stay as they are typed.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_LETTER = r"[^\W\d_]"
TONES = "\u0300\u0301\u0303\u0309\u0323"  # huyền, sắc, ngã, hỏi, nặng

# Controls that are no whitespace, soft hyphens, zero-width spaces, marks of direction, byte-order marks, tags. Joiners
# stay where scripts and emoji are made of them: in front of Arabic to Mongolian letters, symbols and emoji; and tags
# after a black flag, which make it that of England, Scotland or Wales.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb]"
    "|(?<![\U0001f3f4\U000e0000-\U000e007f])[\U000e0000-\U000e007f]+"
    "|[\u200c\u200d](?![\u0600-\u1dff\u2190-\u2bff\U0001f000-\U0001faff])"
)
_FILLERS = "\u115f\u1160\u2800\u3164\uffa0"  # letters and patterns that look like a space
_STRAY_SELECTORS = re.compile("(?<!\\S)[\ufe00-\ufe0f\U000e0100-\U000e01ef]+")
_TONE_BEFORE_SHAPE = re.compile(f"([aeoAEO])([{TONES}])([\u0302\u0306])")
_ETH, _WORD = re.compile("[ÐðƉ]"), re.compile(rf"{_LETTER}+")
_ICELANDIC = re.compile(r"[a-záéíóúýæöøþð]*[aeiouyáéíóúýæöø][a-záéíóúýæöøþð]*", re.IGNORECASE)
_LIKE_LATIN = re.compile("[\ufb00-\ufb06\uff01-\uff5e\U0001d400-\U0001d7ff]+")

_SYLLABLE = re.compile(
    r"(?P<onset>qu|gi|ngh?|[cgknpt]h|tr|[bcdđghklmnpqrstvx]?)(?P<vowels>[aăâeêioôơuưy]{1,3})"
    r"(?P<final>ch|nh|ng|[cmnpt]?)",
    re.IGNORECASE,
)
_VOWELS = (
    " a ă â e ê i o ô ơ u ư y ai ao au ay âu ây eo êu ia iê iêu iu oa oă oai oao oay oe oeo oi oo ôi ơi "
    "ua uâ uây uê ui uô uôi uơ uy uya uyê uyu ưa ưi ươ ươi ươu ưu yê yêu "
)


def mend(text: str) -> str:
    """Composed letters (NFC), "Đ" where an eth was typed, nothing invisible; spaces stay as they are.

    - A tone typed before the mark of its vowel ("a", acute, circumflex) composes too.
    - Eth (Ð, ð, and Ɖ) looks like "Đ" and was typed for it where keyboards had no other. It becomes "Đ" or "đ", but
      for "ð" inside a word that may be Icelandic ("Guðrún", "Sigurður"): no Vietnamese word has "đ" there. Icelandic
      in capitals ("GUÐRÚN") is not told from an abbreviation ("HÐND"), and gets "Đ". Letters of all other languages
      stay.
    - Zero-width characters, soft hyphens, byte-order marks, marks of direction and control characters go. Joiners stay
      inside emoji and in scripts that are written with them.

    Example:
        >>> from st_vi.text import mend
        >>> mend("Quyết ðịnh 12/QÐ-UBND,  ông Sigurður"), mend("tr\\u200bời")
        ('Quyết định 12/QĐ-UBND,  ông Sigurður', 'trời')
    """
    text = unicodedata.normalize("NFC", _INVISIBLE.sub("", text))
    if "\u0302" in text or "\u0306" in text:
        text = unicodedata.normalize("NFC", _TONE_BEFORE_SHAPE.sub(r"\1\3\2", unicodedata.normalize("NFD", text)))
    return _WORD.sub(_without_eth, text) if _ETH.search(text) else text


def _without_eth(match: re.Match[str]) -> str:
    if not _ETH.search(match[0]):
        return match[0]
    word = match[0].replace("Ð", "Đ").replace("Ɖ", "Đ")
    foreign = _ICELANDIC.fullmatch(word) and (word[0] != "ð" or re.search("[æøöþ]", word))
    return word if foreign else word.replace("ð", "đ")


def normalise(text: str) -> str:
    """The form in which a text is stored: `mend`, with one space for every run of whitespace and none at the ends.

    Non-breaking, wide and thin spaces, line ends and fillers all count as whitespace.

    Example:
        >>> from st_vi.text import normalise
        >>> normalise("\\ufeffÐường\\u00a0 phố\\n"), normalise("\\u200b \\x07")
        ('Đường phố', '')
    """
    spaced = mend(text.translate(dict.fromkeys(map(ord, _FILLERS), " ")))  # first: a joiner in front of one goes, too
    return " ".join(_STRAY_SELECTORS.sub("", spaced).split())


def is_blank(text: str) -> bool:
    """Whether a text is empty or has only invisible characters.

    Example:
        >>> from st_vi.text import is_blank
        >>> is_blank(" \\u200b\\u00ad"), is_blank("…")
        (True, False)
    """
    seen = any(character.isalnum() and character not in _FILLERS for character in text[:64])
    return not seen and not normalise(text)


def is_unicode(text: str) -> bool:
    """Whether a string can be written as UTF-8. One with half of a surrogate pair cannot: no tokenizer takes it.

    Example:
        >>> from st_vi.text import is_unicode
        >>> is_unicode("Trời mưa."), is_unicode("Trời mưa." + chr(0xD83D))
        (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def comparison_key(text: str, casefold: bool = False, normalised: bool = False) -> str:
    """The same string for two texts that are the same to a reader; to compare by, not to train on.

    Beyond `normalise`:

    - The tone mark stands where the newer spelling has it: "Hòa" and "Hoà", "Ủy" and "Uỷ", also "qúy" and "quý".
      Only in what can be a Vietnamese syllable, and only where it has one tone.
    - "i" and "y" are one where they sound alike and no word hangs on it: at the end of a syllable after h, k, l, m, s
      and t alone ("kĩ", "kỹ"), and after "qu" ("quí", "quý"). Not "tai" and "tay", nor "Vi" and "Vy".
    - Full-width, mathematical and joined letters are plain ones; every eth is "đ". A heart is one, in colour or not.

    Capital letters and punctuation count.

    Args:
        text: Any text.
        casefold: Compare regardless of case.
        normalised: The text has been through `normalise` already.

    Example:
        >>> from st_vi.text import comparison_key
        >>> comparison_key("Khách quí của Uỷ ban") == comparison_key("Khách  quý của Ủy ban")
        True
        >>> comparison_key("Hoà nhạc"), comparison_key("HÒA NHẠC", casefold=True), comparison_key("một mùa, mía")
        ('Hoà nhạc', 'hoà nhạc', 'một mùa, mía')
    """
    text = text if normalised else normalise(text)
    text = _LIKE_LATIN.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text).replace("ð", "đ")
    text = text.replace("\ufe0e", "").replace("\ufe0f", "")  # in colour or not
    text = _WORD.sub(lambda match: _spelled(match[0]), unicodedata.normalize("NFC", text))
    return unicodedata.normalize("NFC", text.casefold()) if casefold else text


@lru_cache(maxsize=2**15)  # Vietnamese has some thousand syllables
def _spelled(word: str) -> str:
    """One word with the tone mark and the "i" or "y" of the newer spelling; unchanged if it is no syllable."""
    parts = unicodedata.normalize("NFD", word)
    tones = [character for character in parts if character in TONES]
    bare = unicodedata.normalize("NFC", "".join(character for character in parts if character not in TONES))
    match = _SYLLABLE.fullmatch(bare)
    if not match or len(tones) > 1:
        return word
    onset, vowels, final = match["onset"], match["vowels"], match["final"]
    if f" {vowels.lower()} " not in _VOWELS:
        return word
    if onset.lower() == "qu":
        vowels = {"i": "y", "I": "Y"}.get(vowels, vowels)
    elif onset.lower() in {"h", "k", "l", "m", "s", "t"} and not final:
        vowels = {"y": "i", "Y": "I"}.get(vowels, vowels)
    place = _tone_place(vowels.lower(), bool(final)) + 1
    return unicodedata.normalize("NFC", onset + vowels[:place] + "".join(tones) + vowels[place:] + final)


def _tone_place(vowels: str, closed: bool) -> int:
    """Which of the vowels bears the tone: the last with a mark of its own, else by the end of the syllable."""
    if shaped := [place for place, vowel in enumerate(vowels) if vowel in "ăâêôơư"]:
        return shaped[-1]
    if closed:
        return len(vowels) - 1
    return 1 if len(vowels) == 3 or vowels in {"oa", "oe", "uy"} else 0


def without_capitals(text: str) -> str:
    """The text in lower case if all of it is in capitals, but for a single word, which may be an abbreviation.

    Example:
        >>> from st_vi.text.normal import without_capitals
        >>> without_capitals("THỦ TỤC LY HÔN"), without_capitals("UBND"), without_capitals("UBND ở đâu?")
        ('thủ tục ly hôn', 'UBND', 'UBND ở đâu?')
    """
    return text.lower() if text.isupper() and len(text.split()) > 1 else text


def strip_diacritics(text: str) -> str:
    """Vietnamese as it is typed without accents: no marks on Latin letters, "d" for "đ" and for eth.

    Marks of French or German go as well ("café", "Müller"); letters that are no marked ones ("ß", "ø", "æ") and all
    other scripts stay as they are, as their marks are no accents that one may leave out.

    Example:
        >>> from st_vi.text import strip_diacritics
        >>> strip_diacritics("Đường ra Hà Nội"), strip_diacritics("Ðại ðường")
        ('Duong ra Ha Noi', 'Dai duong')
    """
    bare = re.sub(rf"({_LETTER}?)([\u0300-\u036f]+)", _without_marks, unicodedata.normalize("NFD", text))
    return unicodedata.normalize("NFC", bare).translate(str.maketrans("đĐðÐƉ", "dDdDD"))


def _without_marks(match: re.Match[str]) -> str:
    is_foreign = match[1] > "\u02af"  # behind the Latin letters
    return match[0] if is_foreign else match[1]

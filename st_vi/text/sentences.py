"""Boundaries of Vietnamese sentences."""

from __future__ import annotations

import re

# Written with a full stop that ends no sentence. Single letters (initials, "Q. 1", "P. 5") are not listed.
_ABBREVIATION = re.compile(
    "tp|tx|tt|ts|ths|gs|pgs|bs|bsck|ks|kts|ls|nxb|sđt|đt|đc|đ/c|vd|tr|st|mr|mrs|ms|dr|prof|no|vol|fig", re.IGNORECASE
)
_END = re.compile(
    r"""
    (?P<stop>(?<![.!?…])[.!?…]+["'”’»)\]]*)(?=\s)  # punctuation, what closes with it, and a space
    | (?P<wide>[。！？]+["'”’」』]*)          # the wide forms stand without one
    | (?P<line>\n)
    """,
    re.VERBOSE,
)
_LOOK_BACK = 200  # characters; a text in small letters may be one sentence
_HEADING = re.compile(r"(?:điều|khoản|mục|chương|phần|bài|câu|hình|bảng|phụ lục)\s+[\w.-]+\Z", re.IGNORECASE)
_NUMBERING = re.compile(r"(?:\d+(?:\.\d+)*|[a-zđ]|[ivxlc]+)\Z", re.IGNORECASE)
_ITEM = re.compile(r"\s*(?:[-–—•*+●▪]\s|(?:\d+(?:\.\d+)*|[a-zđ]{1,2}|[ivxlc]+)[.)/]\s)", re.IGNORECASE)


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Sentences of a text as (start, end), without the spaces around them.

    A full stop, question mark, exclamation mark or ellipsis before a space ends a sentence, unless a small letter
    follows. It does not after an abbreviation ("TP. HCM", "PGS. TS. Lê A"), an initial, or the number of an item or
    article ("1. Phạm vi", "Điều 5. Phạm vi"). Numbers such as "1.200.000" have no space inside. A new line begins a
    sentence if it is blank, begins an item of a list ("a) …", "- …") or does not go on in small letters.

    Example:
        >>> from st_vi.text.sentences import sentence_spans
        >>> text = "Anh ở TP. HCM. Giá 1.200.000 đồng! Gồm:\\na) vé;\\nb) ăn trưa."
        >>> [text[start:end] for start, end in sentence_spans(text)]
        ['Anh ở TP. HCM.', 'Giá 1.200.000 đồng!', 'Gồm:', 'a) vé;', 'b) ăn trưa.']
    """
    spans, start = [], 0
    for match in _END.finditer(text):
        end = match.end()
        if _ends(text, start, match):
            spans.append((start, end))
            start = end
    spans.append((start, len(text)))
    return [trimmed for span in spans if (trimmed := _trimmed(text, *span))]


def _ends(text: str, start: int, match: re.Match[str]) -> bool:
    """Whether the sentence from `start` is over here."""
    before, rest = text[max(start, match.start() - _LOOK_BACK) : match.start()], match.end()
    if match["wide"]:
        return True
    if match["line"]:
        following = text[rest : rest + 200]
        if not before.strip() or _ITEM.match(following) or not following.partition("\n")[0].strip():
            return True
        return not _goes_on(text, rest) and not before.rstrip().endswith(",") and not _is_short_for(before.rstrip())
    number = before.strip() if match.start() - start < _LOOK_BACK else ""  # the whole sentence so far
    if match["stop"] == "." and (_is_short_for(before + ".") or _HEADING.match(number)):
        return False
    if match["stop"][0] == "." and _NUMBERING.match(number):
        return False
    return not _goes_on(text, rest)


def _goes_on(text: str, position: int) -> bool:
    """Whether a small letter comes next on this line or, after one line's end, on the next."""
    while position < len(text) and text[position].isspace():
        position += 1
    return position < len(text) and text[position].islower() and not _ITEM.match(text, position)


def _is_short_for(before: str) -> bool:
    """Whether a text ends with an abbreviation's full stop."""
    if not before.endswith("."):
        return False
    word = re.split(r"[\s.(,\"“‘/]", before[:-1])[-1]
    return bool(_ABBREVIATION.fullmatch(word)) or (len(word) == 1 and word.isupper())


def _trimmed(text: str, start: int, end: int) -> tuple[int, int] | None:
    piece = text[start:end]
    if not (inside := piece.strip()):
        return None
    start += len(piece) - len(piece.lstrip())
    return start, start + len(inside)

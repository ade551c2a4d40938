"""Small changes with a Vietnamese meaning: marks taken off, a negation turned, a number swapped.

Rules over syllables, without a parser: each function documents what it does not see. They ask of a model whether it
notices, and are no training data.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from hashlib import blake2b

from st_vi.evaluation.text_units import strip_diacritics

__all__ = ["strip_diacritics", "swap_negation", "swap_number"]

NEGATIONS = ("không", "chưa", "chẳng")
NUMBERS = ("một", "hai", "ba", "bốn", "năm", "sáu", "bảy", "tám", "chín", "mười")

# Sequences of syllables, first come first served. After a subject, these mark where the verb begins.
_TURNED = {
    "không phải là": "là",
    "chưa phải là": "là",
    "chẳng phải là": "là",
    "không thể": "có thể",
    "có thể": "không thể",
    "đã": "chưa",
    "từng": "chưa từng",
    "vẫn": "vẫn không",
    "cũng": "cũng không",
    "đều": "đều không",
    "sẽ": "sẽ không",
    "đang": "không",
    "là": "không phải là",
    "có": "không có",
    "được": "không được",
    "bị": "không bị",
    "phải": "không phải",
    "muốn": "không muốn",
    "cần": "không cần",
    "thích": "không thích",
    "biết": "không biết",
}
_NO_NEGATION = re.compile(
    r"(?:số|hàng) không\b|\bkhông (?:khí|gian|quân|trung|những|chỉ)\b|\bchẳng (?:hạn|những)\b"
    r"|\b(?:không|chưa|chẳng) (?:ai|gì|một|ngờ|lẽ)\b|\b(?:không|chưa)(?=\s*(?:\?|$))|\bbị (?:cáo|can|đơn)\b"
)
_REPLACEMENTS = ("hai", "ba", "bốn", "sáu", "bảy", "tám", "chín")  # they fit before "mươi" and "trăm" and after both
_BEFORE_YEAR = (*NUMBERS, r"\d+", "mươi", "trăm", "nghìn", "hằng", "hàng", "mỗi", "từng", "cả", "suốt", "đầu", "cuối")
_NO_NUMBER = re.compile(
    rf"(?i:\b(?:{'|'.join(_BEFORE_YEAR)}|sang|quanh|lâu|nhiều|mấy|vài) (?P<only>năm)\b)"
    r"|\bnăm (?:nay|ngoái|trước|sau|ấy|đó|kia|nào|học|mới|tháng|\d+)\b|\bnăm (?=[^\W\d_a-zà-ỹ])"
    r"|\bmột (?:nửa|mình|phần|số|vài|ít|chút|cách|khi)\b"
)


def swap_negation(text: str) -> str | None:
    """Turn the meaning: take the first negation out, or put one where the verb begins. None where no rule applies.

    A lowercase "không", "chưa" or "chẳng" in front of another syllable goes ("không phải là" becomes "là", "không thể"
    becomes "có thể"). Where there is none, the first of a few common syllables is turned: "đã" into "chưa", "là" into
    "không phải là", "có" into "không có", and so on with đang, sẽ, vẫn, cũng, đều, từng, được, bị, phải, muốn, cần,
    thích and biết.

    Not seen: the clause that carries the meaning (the first place is taken), negation by other words (đâu có, chớ,
    thiếu), and "đã" or "có" that is no verb. "số không", "không khí", "không những", "không ai" and a closing
    "không?" are left alone. The sentence may sound stiff, and "phải" (must) turns into what need not be. In NFC.

    Example:
        >>> from st_vi.data.perturbations import swap_negation
        >>> swap_negation("Tàu chưa vào ga."), swap_negation("Tàu đã vào ga."), swap_negation("Mưa to.")
        ('Tàu vào ga.', 'Tàu chưa vào ga.', None)
    """
    text = unicodedata.normalize("NFC", text)
    removable = [*NEGATIONS, *(phrase for phrase in _TURNED if phrase.startswith(NEGATIONS))]
    found = _first(text, removable) or _first(text, [phrase for phrase in _TURNED if phrase not in removable])
    if found is None:
        return None
    turned = _TURNED.get(found[0], "")
    return text[: found.start()] + turned + text[found.end() + (not turned) :]


def swap_number(text: str, seed: int = 0) -> str | None:
    """Change one number: the first in digits, else the first in words from "một" to "mười". None where there is none.

    Of digits the last one above 0 before the first separator changes: "1998" becomes another year nearby, "2.000"
    another round sum. In words, "mười hai" changes at its end ("mười bảy") and "hai mươi tám" at its beginning. Which
    number comes depends on the text and the seed alone.

    Not seen: whether "một" is an article, "ba" a father, "chín" ripe. Left alone are "năm" for year, after another
    number and in "năm nay", "mỗi năm" and the like; "một mình", "một nửa" and the like; digits joined to letters
    ("3D"); and what has a capital letter, as in the name "chị Hai". In NFC.

    Args:
        text: A sentence.
        seed: Another seed may give another number.

    Example:
        >>> from st_vi.data.perturbations import swap_number
        >>> swap_number("Lớp có ba mươi em."), swap_number("Xe số 12 đến trễ."), swap_number("Mưa to.")
        ('Lớp có bảy mươi em.', 'Xe số 15 đến trễ.', None)
    """
    text = unicodedata.normalize("NFC", text)
    draw = int.from_bytes(blake2b(f"{seed} {text}".encode(), digest_size=8).digest())
    digit = re.search(r"[1-9](?=0*(?!\w))", text)
    if digit:
        found, choices = digit, "123456789"
    else:
        numbers = list(_outside(_NO_NUMBER, rf"\b({'|'.join(NUMBERS)})\b", text))
        if not numbers:
            return None
        found, choices = numbers[0], _REPLACEMENTS
        for following in numbers[1:]:  # to the end of "mười hai" or "hai mươi"
            if text[found.end() : following.start()] != " ":
                break
            found = following
    others = [choice for choice in choices if choice != found[0]]
    return text[: found.start()] + others[draw % len(others)] + text[found.end() :]


def _first(text: str, phrases: list[str]) -> re.Match[str] | None:
    longest_first = "|".join(sorted(phrases, key=len, reverse=True))
    return next(_outside(_NO_NEGATION, rf"\b({longest_first})\b", text), None)


def _outside(exceptions: re.Pattern[str], pattern: str, text: str) -> Iterator[re.Match[str]]:
    """Where the pattern stands and none of the exceptions does."""
    taken = [match.span(match.lastgroup or 0) for match in exceptions.finditer(text)]
    for match in re.finditer(pattern, text):
        if not any(match.start() < end and start < match.end() for start, end in taken):
            yield match

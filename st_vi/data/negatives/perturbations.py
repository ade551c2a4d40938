"""Small changes of a Vietnamese text: another number, another order of its words.

Rules over syllables, without a parser; each function says what it misses. `OrderSensitivityEvaluator` tests with such
texts whether a model notices, and `perturbed_negatives` makes training rows of them.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from itertools import pairwise
from random import Random
from typing import Literal

from st_vi.checks import check_choice
from st_vi.data.negatives.negation import outside
from st_vi.text import mend
from st_vi.text.segmentation import segment_words
from st_vi.text.units import Span

Order = Literal["swap", "within_trigrams", "trigrams", "reverse", "shuffle"]
Unit = Literal["syllable", "word"]

NUMBERS = ("một", "hai", "ba", "bốn", "năm", "sáu", "bảy", "tám", "chín", "mười")

_REPLACEMENTS = ("hai", "ba", "bốn", "sáu", "bảy", "tám", "chín")  # they fit before "mươi" and "trăm" and after both
_BEFORE_YEAR = (*NUMBERS, r"\d+", "mươi", "trăm", "nghìn", "hằng", "hàng", "mỗi", "từng", "cả", "suốt", "đầu", "cuối")
_NUMBER = re.compile(rf"\b({'|'.join(NUMBERS)})\b")
_NO_NUMBER = re.compile(
    rf"(?i:\b(?:{'|'.join(_BEFORE_YEAR)}|sang|quanh|lâu|nhiều|mấy|vài) (?P<only>năm)\b)"
    r"|\bnăm (?:nay|ngoái|trước|sau|ấy|đó|kia|nào|học|mới|tháng|\d+)\b|\bnăm (?=[^\W\d_a-zà-ỹ])"
    r"|\bmột (?:nửa|mình|phần|số|vài|ít|chút|cách|khi)\b"
)


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
        >>> from st_vi.data import swap_number
        >>> swap_number("Lớp có ba mươi em."), swap_number("Xe số 12 đến trễ."), swap_number("Mưa to.")
        ('Lớp có bảy mươi em.', 'Xe số 15 đến trễ.', None)
    """
    text = mend(text)
    draw = int.from_bytes(blake2b(f"{seed} {text}".encode(), digest_size=8).digest())
    digit = re.search(r"[1-9](?=0*(?!\w))", text)
    if digit:
        found, choices = digit, tuple("123456789")
    else:
        numbers = list(outside(_NO_NUMBER, _NUMBER, text))
        if not numbers:
            return None
        found, choices = numbers[0], _REPLACEMENTS
        for following in numbers[1:]:  # to the end of "mười hai" or "hai mươi"
            if text[found.end() : following.start()] != " ":
                break
            found = following
    others = [choice for choice in choices if choice != found[0]]
    return text[: found.start()] + others[draw % len(others)] + text[found.end() :]


def change_order(text: str, order: Order = "swap", unit: Unit = "syllable", seed: int = 0) -> str | None:
    """The same syllables in another order. None where there is none: too short a text, or one repeated syllable.

    - "swap": two different units change places.
    - "within_trigrams": units are shuffled inside each group of three.
    - "trigrams": the groups of three are shuffled.
    - "reverse": the last unit comes first.
    - "shuffle": all units are shuffled.

    Spaces and punctuation stay where they are, and so does the capital letter of the first unit, unless the unit looks
    like a name ("Hà Nội": the next syllable has a capital too). The order depends on text, order, unit and seed alone.

    Source: ARO and NegCLIP, arXiv 2210.01936. *Inferred*: units are drawn whatever their part of speech, where the
    paper swaps or shuffles by nouns and adjectives; "reverse" and a "shuffle" of everything are added.

    Not seen: an order that means the same ("mẹ và con", "con và mẹ") or that is no Vietnamese at all. A swap of
    syllables may cut a word in two; "word" does not.

    Args:
        text: Any text. The result is in NFC.
        order: See above.
        unit: "syllable", or "word" as the segmenter pyvi finds them: needs ``pip install "st-vi[vi]"``.
        seed: Another seed may give another order.

    Raises:
        ValueError: An unknown order or unit.
        ImportError: Words without pyvi.

    Example:
        >>> from st_vi.data import change_order
        >>> change_order("Mèo đuổi chuột.", "reverse"), change_order("Sinh viên hỏi.", "reverse", unit="word")
        ('Chuột đuổi mèo.', 'Hỏi sinh viên.')
    """
    check_choice("order", order, Order)
    check_choice("unit", unit, Unit)
    text = mend(text)
    spans = _syllables(text) if unit == "syllable" else _words(text)
    units = [text[start:end] for start, end in spans]
    if units and not _is_name(units):
        units[0] = units[0][0].lower() + units[0][1:]
    new = _reordered(units, order, Random(f"{seed} {order} {unit} {text}"))
    if new is None:
        return None
    if text[spans[0][0]].isupper():
        new[0] = new[0][0].upper() + new[0][1:]
    gaps = [text[end:start] for (_, end), (start, _) in pairwise(spans)]
    inside = "".join(part for pair in zip(new, [*gaps, ""], strict=True) for part in pair)
    return text[: spans[0][0]] + inside + text[spans[-1][1] :]


def _reordered(units: list[str], order: Order, random: Random) -> list[str] | None:
    keys = [unit.casefold() for unit in units]
    places = list(range(len(units)))
    for _ in range(32):  # draws that can differ do so in half of the cases or more
        new = _draw(keys, places, order, random)
        if [keys[place] for place in new] != keys:
            return [units[place] for place in new]
    return None


def _draw(keys: list[str], places: list[int], order: Order, random: Random) -> list[int]:
    """One new order of the places."""
    if order == "reverse":
        return places[::-1]
    if order == "shuffle":
        return random.sample(places, len(places))
    if order == "swap":
        new = list(places)
        first = random.choice(places) if places else 0
        if others := [place for place in places if keys[place] != keys[first]]:
            second = random.choice(others)
            new[first], new[second] = second, first
        return new
    groups = [places[start : start + 3] for start in range(0, len(places), 3)]
    if order == "trigrams":
        random.shuffle(groups)
    else:
        groups = [random.sample(group, len(group)) for group in groups]
    return [place for group in groups for place in group]


def _syllables(text: str) -> list[Span]:
    return [match.span() for match in re.finditer(r"\w+(?:[.,:/'’-]\w+)*", text)]


def _words(text: str) -> list[Span]:
    """Syllables, joined where the segmenter joins them; it writes its own spaces, so its words are looked for."""
    inside: set[int] = set()
    reached = 0
    for word in segment_words(text).split():
        if found := re.compile(r"\s+".join(map(re.escape, word.split("_")))).search(text, reached):
            inside.update(range(*found.span()))
            reached = found.end()
    spans: list[Span] = []
    for start, end in _syllables(text):
        joined = spans and inside.issuperset(range(spans[-1][1], start))
        spans[-1:] = [(spans[-1][0], end)] if joined else [*spans[-1:], (start, end)]
    return spans


def _is_name(units: list[str]) -> bool:
    """Whether the first unit has a capital beyond that of a sentence, or is followed by another one."""
    following = units[1][:1] if len(units) > 1 else ""
    return any(letter.isupper() for letter in units[0][1:] + following)

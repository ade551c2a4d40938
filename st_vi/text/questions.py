"""Questions that a sentence answers: in Vietnamese the question word stands in the place of the answer."""

from __future__ import annotations

import re
from random import Random

_LOWER = "a-zàáâãèéêìíòóôõùúýăđĩũơưạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ"
_UPPER = "A-Z" + _LOWER[3:].upper()
_NAME = rf"[{_UPPER}]\w*(?: [{_UPPER}]\w*)*"
_SENTENCE_END = re.compile(rf"(?<=[.!?…;])\s+(?=[\"“'(]?[{_UPPER}0-9])|\n+")
_CLAUSE_END = re.compile(r"[,;:–()]| và | nhưng | mà ")
_AFTER_PLACE = r"(?=[,.;:]|$| (?:và|vào|năm|từ|để|trong|là|với|nơi|nhưng|sau|khi)\b)"
# What stands in a sentence, and the words that ask for it in its place.
_ASKED: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), word)
    for pattern, word in (
        (r"\b(?:ngày \d+/\d+(?:/\d+)?|ngày \d+(?: tháng \d+)?(?: năm \d{3,4})?)", "ngày nào"),
        (r"\bvào năm \d{3,4}\b", "vào năm nào"),
        (r"\bnăm \d{3,4}\b", "năm nào"),
        (r"\bthế kỷ (?:\d+|[XVI]+)\b", "thế kỷ nào"),
        (r"\b\d[\d.,]*(?= ?%)", "bao nhiêu"),
        (rf"(?<=[{_LOWER}] )\d[\d.,]*(?= [{_LOWER}])", "bao nhiêu"),
        (rf"(?<=[{_LOWER}] )(?:ở|tại) {_NAME}{_AFTER_PLACE}", "ở đâu"),
        (rf"(?<= bởi ){_NAME}", "ai"),
        (rf"(?<= do )[{_UPPER}]\w*(?: [{_UPPER}]\w*)+", "ai"),
        (rf"(?<= tên là ){_NAME}", "gì"),
        (r"(?<= là )(?:một|những|các) [^,.;]*$", "gì"),
        (rf"^[{_UPPER}]\w*(?: [{_UPPER}]\w*)+(?= (?:đã|là|được|sinh|cho|có) )", "Ai"),
        (rf"(?<=[{_LOWER}] )(?:vì|bởi vì) [{_LOWER}][^,.;]*$", "vì sao"),
    )
)
_ORDINAL = re.compile(
    r"\b(?:năm|tháng|ngày|số|thứ|điều|khoản|quận|tập|kỷ|lớp|hạng|loại|đoàn|phần|mục|chương)\s*\Z", re.IGNORECASE
)
_HE = re.compile(r"^(?:Ông|Bà|Nó|Anh|Cô|Họ|Loài này|Thành phố này|Tỉnh này|Chi này|Trận này)\b")


def sentences(paragraph: str) -> list[str]:
    """Sentences, as far as a full stop and a capital letter tell.

    Example:
        >>> from st_vi.text.questions import sentences
        >>> sentences("Trời mưa to. Ông Ba ở nhà.")
        ['Trời mưa to.', 'Ông Ba ở nhà.']
    """
    return [part.strip() for part in _SENTENCE_END.split(paragraph) if part.strip()]


def clauses(sentence: str) -> list[str]:
    """The parts of a sentence between commas, brackets, and the words for "and" and "but"."""
    return [part.strip(" ,;:–-()") for part in _CLAUSE_END.split(sentence)]


def question(sentence: str, random: Random, title: str | None = None) -> str | None:
    """A question that the sentence answers, or None where there is nothing to ask for.

    A date, number, place, name or reason gives way to its question word (a cloze; Lewis et al. 2019, arXiv
    1906.04980, need a translation model to make a question of it, and Vietnamese does not). By chance only the clause
    that asks is kept, so that fewer words of the sentence are left.

    Args:
        sentence: A sentence of a paragraph.
        random: Decides what to ask for.
        title: Title of the article; replaces a pronoun at the beginning.

    Example:
        >>> from random import Random
        >>> from st_vi.text.questions import question
        >>> question("Ông sinh năm 1954, con một nhà giáo.", Random(1), "Trần Văn An")
        'Trần Văn An sinh năm nào, con một nhà giáo?'
        >>> question("Trời xanh.", Random(0)) is None
        True
    """
    sentence = re.sub(r"\s*\([^)]*\)", "", sentence.strip(" .;:!?…"))
    found = [(match, word) for pattern, word in _ASKED for match in pattern.finditer(sentence)]
    found = [
        (match, word) for match, word in found if word != "bao nhiêu" or not _ORDINAL.search(sentence[: match.start()])
    ]
    if not found:
        return None
    match, word = random.choice(found)
    asked = sentence[: match.start()] + word + sentence[match.end() :]
    if random.random() < 0.6:
        asked = _clause_at(asked, match.start())
    if title:
        asked = _HE.sub(lambda _: title[:1].upper() + title[1:], asked)
    return f"{asked[:1].upper()}{asked[1:]}?" if 4 <= len(asked.split()) <= 28 else None


def _clause_at(sentence: str, place: int) -> str:
    """The clause around a place, with the next one or the one before where it is short."""
    parts, start, index = re.split(r"(, |; )", sentence), 0, 0
    for number, part in enumerate(parts):
        if start <= place:
            index = number
        start += len(part)
    clause = parts[index]
    if len(clause.split()) < 5 and index + 2 < len(parts):
        return clause + parts[index + 1] + parts[index + 2]
    if len(clause.split()) < 5 and index >= 2:
        return parts[index - 2] + parts[index - 1] + clause
    return clause

"""Negation in Vietnamese sentences: remove the negation of a sentence, or add one before the verb."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from st_vi.text import mend
from st_vi.text.sentences import sentence_spans

# What stands there in place of a negation; "" takes it out. Sequences of syllables, the longest first.
_REMOVED = {
    **{f"{no} phải là": "là" for no in ("không", "chưa", "chẳng", "chả", "đâu")},
    "đâu phải": "là",
    **{f"{no} bao giờ": "luôn luôn" for no in ("không", "chẳng", "chả")},
    **{f"{no} hề": "" for no in ("không", "chẳng", "chả")},
    "không": "",
    "không thể": "có thể",
    "không còn": "vẫn còn",
    "chưa": "",
    "chưa bao giờ": "từng",
    "chưa từng": "từng",
    "chưa hề": "đã",
    "vẫn chưa": "đã",
    "còn chưa": "đã",
    "chẳng": "",
    "chả": "",
    "đừng": "hãy",
    "chưa vợ": "có vợ",
    "chưa chồng": "có chồng",
    "đừng có": "hãy",
    "đừng bao giờ": "hãy luôn luôn",
    "đừng nên": "nên",
    "đâu có": "có",
}
# After a subject, these mark where the verb begins.
_TURNED = {
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


def _any(words: str) -> str:
    return rf"(?:{'|'.join(words.split())})"


def _pattern(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(alternatives), re.IGNORECASE)


_NO = _any("không chưa chẳng chả đừng")
_SOMETHING = _any("ai gì nào đâu mấy bao")
_KNOW = _any("biết nhớ hiểu rõ đoán chắc")
_CLAUSE = r"[^,;:.!?…]*"
_END = r"(?=\s*(?:[,;:.!?…]|$)|[”\"’')»\]])"

# It asks ("Em có đi không, nói đi"), or has no verb ("tôi thì không").
_CLOSING = rf"\b{_any('không chưa')}(?: {_any('ạ à hả nha nhé nhỉ vậy')})*{_END}"

# What looks like a negation and is none: words that have the syllable, and tags.
_NO_NEGATION = _pattern(
    r"\b(?:hãng|ngành|vé|ga|cảng|đường|vận tải|tiếp viên|dịch vụ|an ninh|công ty) hàng không\b|^hàng không\b",
    r"\b(?:pháo|tên lửa|lực lượng|bộ đội|quân chủng|hệ thống) phòng không\b",
    r"\b(?:hút|bơm|buồng|môi trường) chân không\b|\bsố không\b|\bnếu không sẽ\b|\bkhông thì\b",
    rf"\bkhông {_any('khí gian quân trung phận tưởng tặc lực vận kích chiến dưng sao ngờ lẽ')}\b",
    rf"\bchẳng {_any('hạn qua lẽ ngờ')}\b|\b{_any('không chưa chẳng')} kể\b|\bkhông (?:biết chừng|hẹn mà)\b",
    rf"\bkhông (?:{_any('độ đồng điểm')}{_END}|(?:độ C|phẩy|phần trăm)\b)",  # nought
    rf"\b{_any('từ lúc vào đến trước sau')} không giờ\b",
    rf"^\W*không {_any('chừng khéo may')}\b|^\W*không hiểu (?:vì |tại )?sao\b|^\W*chưa hết,",
    rf"\b\w+ không (?:dây|người lái)\b|\btay không {_any('bắt đánh mà ra trở về')}\b",
    rf"\bchưa đầy (?:\d|{_any('một hai ba bốn năm sáu bảy tám chín mười nửa vài')}\b)",
    rf"\b{_any('biếu tặng bỏ')} không\b|\băn không ngồi rồi\b",  # for nothing
    rf"\bchả {_any('đã rất này là của và')}\b|\b{_any('chẳng chả đừng')}{_END}",
    rf"\b{_any('bún giò nem bánh đĩa miếng')} chả\b|\bchả {_any('giò cá lụa mực quế ram nem rươi trứng')}\b",
    rf"{_CLOSING}|\bhay {_any('không chưa')}\b",
)
# What looks like the place for a negation and is none.
_NO_VERB = _pattern(
    rf"\bbị {_any('cáo can đơn hại')}\b|\bcó {_any('lẽ khi lúc điều')}\b",
    rf"\b{_any('hay tức nghĩa nhất thế vậy gọi biệt nào')} là\b|\bcũng {_any('vậy thế')}\b",
    rf"\b{_any('bên tay chân mắc gặp rẽ cánh lẽ')} phải\b|\b{_any('cho được hiểu')} biết\b|\bbiết bao\b",
    rf"\b{_any('sở giải kích yêu ưa')} thích\b|\b{_any('rau ân chuyên')} cần\b|\bcần {_any('câu cù cẩu sa trục')}\b",
)
# A negation that cannot go by itself: the rest would say something else, ask, or say nothing.
_FIXED = _pattern(
    rf"\b{_NO} (?:{_any('ai gì một những chỉ đời mấy khỏi thà trách')}|bao (?:lâu|nhiêu)|phải (?:là )?không)\b",
    rf"\b{_NO} (?:bao giờ\b|(?!bao giờ\b|{_KNOW}\b)){_CLAUSE}\b{_SOMETHING}\b(?! {_any('đó ấy cũng')}\b)",
    rf"\b{_NO} {_KNOW} (?:{_any('gì nào bao')}\b|{_any('ai đâu mấy')}{_END})",
    rf"\b{_any('chứ chớ')} (?:{_NO}|đâu)\b|\b{_NO} (?:phải {_CLAUSE}|\w+(?: \w+)?),? mà\b|\b{_NO} \w+ không\b",
    rf"\bcó {_CLAUSE}\bđâu(?: {_any('ạ mà nha nhé')})?{_END}|\blàm gì có\b",
    rf"\bđâu (?:có|phải) {_CLAUSE}\b{_any('gì nào')}\b",
    rf"\b(?:từ chối|{_any('cấm quên tránh kiêng nhịn')})(?: \w+){{0,3}} {_NO}\b",  # deny by themselves
)
_NOWHERE = "".join(rf"(?<!\b{place} )" for place in ("ở", "từ", "về", "tới", "đến", "vào"))
_EMPHASIS = _pattern(rf"(?P<negated>\b{_NO}\b{_CLAUSE}?) (?:(?:chút|tí|tẹo|mảy may) nào|{_NOWHERE}đâu){_END}")
_NO_MORE = _pattern(rf"(?P<rest> {_CLAUSE}?) nữa{_END}")
_ANSWER = _pattern(r"^(?P<before>\W*)(?P<no>không|chưa),")
# The number of an item, which may stand in front of a sentence.
_OPENING = _pattern(r"^\W*(?:\d+(?:\.\d+)*|[a-zđ]|[ivx]+)[.)/]\s")
_TITLE = re.compile(r"\b(?:Không|Chưa|Chẳng|Chả|Đừng) $")  # inside a sentence
# Negations as they are typed in chats, or without diacritics. They are not taken out, and a sentence with one is given
# no other.
_CHAT = _pattern(rf"\b{_any('ko kô kh k khg khong hk hok hong hông hổng hem khum chx đếch éo chớ')}\b")
_ALREADY = _pattern(rf"(?P<rest> {_CLAUSE}?) rồi{_END}")
_QUESTION_WORD = _pattern(rf"\b{_any('ai gì nào đâu sao mấy bao')}\b")
_YES_OR_NO = _pattern(
    rf"\b{_any('không chưa hả à ư nhỉ chứ nhé sao')}"
    rf"(?: {_any('ạ vậy thế hả nhỉ anh chị em bạn con cháu bác cô chú cậu ông bà mẹ má bố ba thầy mày')})*"
    r"[\s?!.…”\"’')»\]]*$",
    r"\bcó phải\b|\bliệu\b(?=.*\bkhông\b)|\bhay (?:không|chưa|là)\b",
)
_ASKED = _pattern(_CLOSING)
_TAG = _pattern(r"\b(?:à|ư|hả|nhỉ|(?:phải|đúng) không)[.!…”\"’')»\]]*$")  # asks without a question mark, too
# What follows "phải" where it means must, and where "không phải" is the negation of "là".
_DONE = _any(
    "ăn báo chạy chịu chờ chuyển cố dậy dùng di đi đóng đọc đợi đứng gửi giải giữ học khai làm lên lo mang mất mặc mổ "
    "mua nấu nằm nói nộp nghe nghỉ ngồi ngủ ra rửa sửa thay thi thuê thức tiêm tìm tốn trả uống vào vay về viết xem "
    "xếp xin xuống"
)
_BEEN = _any(
    "ai anh ba bà bác bạn bài bên bốn bởi cái cách câu chị chiếc chú chúng chuyện con cô của do em hai hàng họ khi lỗi "
    "loại lúc lần mình món mọi một nó ngày người nhà nhờ nơi ông ở ta tại tác thầy thứ tiền tôi tất vì việc"
)
_POINTS = _pattern(r"\b(?:đây|đó|đấy|kia|này) $")


def swap_negation(text: str) -> str | None:
    """Reverse the meaning: remove the first negation, or add one before the verb. None if no rule applies.

    The first sentence that can be turned. "Không", "chưa", "chẳng", "chả" and "đừng" go, also where they
    begin the sentence ("không phải là" becomes "là", "không thể" becomes "có thể", "đừng" becomes "hãy"). Where there
    is none, the first of a few common syllables is turned: "đã" into "chưa", "là" into "không phải là", "có" into
    "không có", and so on with đang, sẽ, vẫn, cũng, đều, từng, được, bị, phải, muốn, cần, thích and biết. A text
    that has a negation is not given another one, also of those that only chats have ("ko", "hông").

    Left alone are

    - questions: one to be answered by yes or no asks for both ("… không?", "… chưa?", "có phải …", "… nhỉ"), and of the
      others those where the question word stands behind the negation ("Anh không mua gì?") or the verb ("Đây là gì?");
    - negations that cannot go by themselves: "không ai", "không … nào", "không … gì", "không những", "chứ không"; and
      behind a verb that denies, as the sentence says the same without them ("quên không khóa cửa", "cấm không được");
    - what is no negation: "không khí", "số không", "hay không", "bún chả", a closing "không".

    Not seen: the clause that carries the meaning (the first place is taken), negation by other words (thiếu, cấm,
    chớ), and "đã" or "có" that is no verb. The sentence may sound stiff, and "phải" (must) turns into what need not be.

    Returns:
        The text as `st_vi.text.mend` gives it, with one sentence turned.

    Example:
        >>> from st_vi.data import swap_negation
        >>> swap_negation("Tàu chưa vào ga."), swap_negation("Tàu đã vào ga."), swap_negation("Mưa to.")
        ('Tàu vào ga.', 'Tàu chưa vào ga.', None)
        >>> swap_negation("Không có xe, bà đi bộ."), swap_negation("Tàu đã vào ga chưa?")
        ('Có xe, bà đi bộ.', None)
    """
    text = mend(text)
    spans = sentence_spans(text)
    turn = _affirmed if any(_negations(text[start:end]) for start, end in spans) else _negated
    for start, end in spans:
        if (turned := turn(text[start:end])) is not None:
            return text[:start] + turned + text[end:]
    return None


def _negations(sentence: str) -> list[re.Match[str]]:
    return [match for match in outside(_NO_NEGATION, _phrases(_REMOVED), sentence) if _counts(match)]


def _affirmed(sentence: str) -> str | None:
    sentence = _EMPHASIS.sub(r"\g<negated>", sentence)
    negations = _negations(sentence)
    if not negations or _FIXED.search(sentence):
        return None
    if _is_question(sentence):
        asked = _QUESTION_WORD.search(sentence)
        if _YES_OR_NO.search(sentence) or not asked or asked.start() > negations[0].start():
            return None
    return _without(negations[0])


def _negated(sentence: str) -> str | None:
    asks = _is_question(sentence) and not _QUESTION_WORD.search(sentence)
    if asks or any(one.search(sentence) for one in (_YES_OR_NO, _FIXED, _ANSWER, _CHAT, _ASKED)):
        return None
    found = next(outside(_NO_VERB, _phrases(_TURNED), sentence), None)
    if found and _TITLE.search(sentence[: found.start()]):
        return None
    if found and _is_question(sentence) and _QUESTION_WORD.match(sentence, found.end() + 1):  # "… là gì?"
        return None
    if not found:
        return None
    after = sentence[found.end() :]
    if found[0] == "đã" and (already := _ALREADY.match(after)):  # "chưa" has no "rồi"
        after = already["rest"] + after[already.end() :]
    return sentence[: found.start()] + _TURNED[found[0]] + after


def _is_question(sentence: str) -> bool:
    return sentence.rstrip("”\"’')»] ").endswith("?") or bool(_TAG.search(sentence))


def _counts(match: re.Match[str]) -> bool:
    """Not a capital inside the sentence, as in a title; capitals all over are a notice."""
    return match[0][0].islower() or match[0].isupper() or _begins(match)


def _begins(match: re.Match[str]) -> bool:
    """Whether no word of the sentence stands before it, but for a "Không," or "Chưa," that answers, or an opening."""
    before = _ANSWER.sub("", match.string[: match.start()])
    return not re.search(r"\w", _OPENING.sub("", before)) or bool(re.search(r":\W*$", before))


def _without(match: re.Match[str]) -> str | None:
    """The sentence without this negation."""
    before, after = match.string[: match.start()], match.string[match.end() :]
    words, new = match[0].lower(), _REMOVED[match[0].lower()]
    if words == "chưa bao giờ" and _begins(match):
        return None
    must = re.match(r" phải(?= )", after, re.IGNORECASE)
    if words.endswith(" phải") or (not new and must):
        after = after[must.end() :] if must else after
        if re.match(rf" {_DONE}\b", after, re.IGNORECASE):
            new = "phải"
        elif re.match(rf" {_BEEN}\b", after, re.IGNORECASE) or _POINTS.search(before):
            new = "" if _begins(match) else "là"
        else:
            return None
    if no_more := _NO_MORE.match(after):
        new, after = new or "vẫn", no_more["rest"] + after[no_more.end() :]
    if match[0].isupper() and len(match[0]) > 1:
        new = new.upper()
    result = f"{new}{after}" if new else after.lstrip()
    if _begins(match) and match[0][0].isupper():
        result = result[:1].upper() + result[1:]
    answer = _ANSWER.match(before)
    if answer:
        yes = "Có," if answer["no"].lower() == "không" else "Rồi,"
        before = answer["before"] + yes + before[answer.end() :]
    return before + result


def _phrases(table: Mapping[str, str]) -> re.Pattern[str]:
    longest_first = "|".join(sorted(table, key=len, reverse=True))
    return re.compile(rf"\b(?:{longest_first})\b", re.IGNORECASE if table is _REMOVED else 0)


def outside(exceptions: re.Pattern[str], pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """Matches of a pattern that touch no exception, or none of its named groups."""
    taken = [match.span(match.lastgroup or 0) for match in exceptions.finditer(text)]
    for match in pattern.finditer(text):
        if not any(match.start() < end and start < match.end() for start, end in taken):
            yield match

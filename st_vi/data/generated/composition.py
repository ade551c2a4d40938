"""Minimal pairs that test composition: the same words with another meaning.

Every pattern is a sentence and a paraphrase of it with two places, {a} and {b}. The negative is the paraphrase with the
two exchanged: it has exactly the words of the positive, so that no bag of words can tell them apart. In half of the
patterns of a kind the paraphrase names {a} first, as the sentence does, and in half {b}: the order of mention does not
give it away either.
"""

from __future__ import annotations

from itertools import permutations
from random import Random

from datasets import Dataset

from st_vi.checks import check_whole

Pattern = tuple[str, str]
"""A sentence and its paraphrase, with {a}, {b} and perhaps {who}."""

_PEOPLE = (
    *("anh Minh", "chị Lan", "chú Bình", "cô Hạnh", "bác Tâm", "anh Dũng"),
    *("chị Thảo", "ông Phúc", "bà Liên", "dì Mai", "cậu Khoa", "thầy Sơn"),
)
_COLOURS = ("đỏ", "vàng", "trắng", "đen", "tím", "hồng", "nâu", "xám", "xanh lá", "xanh dương")
_NUMBERS = ("hai", "ba", "bốn", "năm", "sáu", "bảy", "tám", "chín", "mười")
_DRINKS = ("trà sen", "cà phê", "nước mía", "nước dừa", "sinh tố bơ", "nước chanh", "sữa đậu nành", "trà gừng")
_CHORES = ("tưới cây", "quét nhà", "nấu cơm", "giặt đồ", "đi chợ", "tập thể dục", "đọc báo", "cho gà ăn")
_PLACES = ("tiệm thuốc", "quán phở", "trường học", "bưu điện", "nhà sách", "ngân hàng", "trạm xăng", "nhà thờ")
_THINGS = ("quyển từ điển", "chiếc hộp", "tờ báo", "cuốn sổ", "tập tranh", "tấm bìa", "cái khay", "chồng đĩa")

_GROUPS: tuple[tuple[str, tuple[str, ...], tuple[Pattern, ...]], ...] = (
    (
        "roles",
        _PEOPLE,
        (
            ("{a} cho {b} vay tiền sửa nhà.", "{b} mượn tiền của {a} để sửa nhà."),
            ("{a} dạy {b} đánh đàn.", "người chỉ cho {b} cách chơi đàn là {a}."),
            ("{a} gọi điện báo tin cho {b}.", "{b} nhận được tin qua cuộc gọi của {a}."),
            ("{a} bán cho {b} mảnh đất sau nhà.", "mảnh đất sau nhà của {a} nay đã về tay {b}."),
            ("{a} chờ {b} ở bến xe suốt một tiếng.", "{a} phải đợi {b} cả giờ đồng hồ tại bến xe."),
            ("{a} thắng {b} trong ván cờ tối qua.", "{a} đã đánh bại {b} khi chơi cờ hôm qua."),
        ),
    ),
    (
        "attributes",
        _COLOURS,
        (
            ("{who} mặc áo {a} và quần {b}.", "chiếc quần của {who} màu {b}, còn áo thì màu {a}."),
            (
                "{who} gói món quà bằng giấy {a} rồi buộc dây {b}.",
                "dây buộc món quà của {who} màu {b}, giấy gói màu {a}.",
            ),
            ("trước nhà {who} có cánh cổng {a} và bức tường {b}.", "nhà {who} sơn cổng màu {a}, tường màu {b}."),
            ("{who} viết chữ {a} lên tấm thiệp {b}.", "trên thiệp của {who}, chữ màu {a}, nền màu {b}."),
        ),
    ),
    (
        "counts",
        _NUMBERS,
        (
            ("{who} nuôi {a} con gà và {b} con vịt.", "đàn vịt của {who} có {b} con, đàn gà có {a} con."),
            (
                "đội của {who} ghi {a} bàn trong hiệp một và {b} bàn trong hiệp hai.",
                "hiệp sau đội của {who} làm tung lưới đối thủ {b} lần, hiệp trước {a} lần.",
            ),
            ("{who} mua {a} quyển vở và {b} cây bút.", "hóa đơn của {who} ghi {a} cuốn vở, {b} chiếc bút."),
            (
                "{who} gọi {a} bát phở và {b} ly nước cam.",
                "bàn của {who} được bưng ra {a} tô phở cùng {b} cốc nước cam.",
            ),
        ),
    ),
    (
        "negation",
        _PEOPLE,
        (
            (
                "{a} đồng ý dời cuộc họp, còn {b} thì phản đối.",
                "chỉ có {b} không chịu dời cuộc họp, {a} thì tán thành.",
            ),
            ("{a} đã nộp hồ sơ, nhưng {b} thì chưa.", "hồ sơ của {a} đã được gửi đi, hồ sơ của {b} thì vẫn chưa."),
        ),
    ),
    (
        "negation",
        _DRINKS,
        (
            ("{who} gọi {a} chứ không gọi {b}.", "{who} không uống {b} mà uống {a}."),
            ("{who} thích {a} nhưng không thích {b}.", "{a} hợp khẩu vị của {who}, còn {b} thì không."),
        ),
    ),
    (
        "time",
        _CHORES,
        (
            ("sáng nay {who} {a}, sau đó {b}.", "trước khi {b} vào buổi sáng, {who} đã {a}."),
            ("{who} {a} xong rồi mới {b}.", "{who} {b} sau khi đã {a}."),
            ("{who} {a} trước khi {b}.", "{who} {a} trước đã, xong mới {b}."),
        ),
    ),
    (
        "time",
        _PEOPLE,
        (("{a} về đến nhà trước {b}.", "lúc {a} về tới nơi thì {b} vẫn còn trên đường."),),
    ),
    (
        "comparison",
        _PEOPLE,
        (
            ("{a} cao hơn {b}.", "{b} thấp hơn {a}."),
            ("{a} lớn tuổi hơn {b}.", "{b} ra đời sau {a}."),
            ("{a} chạy nhanh hơn {b}.", "mỗi lần chạy đua, {a} đều bỏ xa {b}."),
            ("{a} kiếm được ít tiền hơn {b}.", "thu nhập của {a} không bằng {b}."),
        ),
    ),
    (
        "place",
        _PLACES,
        (
            ("{a} nằm bên trái {b}.", "{b} ở phía tay phải của {a}."),
            ("{a} nằm ở phía bắc của {b}.", "từ {a} đi về hướng nam sẽ gặp {b}."),
        ),
    ),
    (
        "place",
        _THINGS,
        (
            ("{a} được đặt dưới {b}.", "{b} nằm đè lên {a}."),
            ("{a} nằm trên {b}.", "bên dưới {a} là {b}."),
        ),
    ),
)
KINDS: tuple[str, ...] = tuple(dict.fromkeys(kind for kind, *_ in _GROUPS))


def composition_probes(per_kind: int = 50, seed: int = 0) -> Dataset:
    """Vietnamese probes of composition for `CompositionEvaluator`; not for training.

    Kinds: "roles" (who does what to whom), "attributes" (which colour belongs to which thing), "counts" (how many of
    which), "negation" (what is denied), "time" (before and after), "comparison" (more and less than) and "place".

    Source: the questions of ARO, arXiv 2210.01936 (relation and attribution), asked of sentences; the Vietnamese
    patterns are this project's own.

    Args:
        per_kind: Probes of each kind, equally many of each pattern as far as that goes.
        seed: Another seed draws other probes.

    Returns:
        Columns anchor, positive, negative and kind; all probes differ.

    Raises:
        ValueError: `per_kind` below 1, or more than there are of a kind.

    Example:
        >>> from st_vi.data import composition_probes
        >>> probes = composition_probes(per_kind=4)
        >>> len(probes), probes.column_names
        (28, ['anchor', 'positive', 'negative', 'kind'])
        >>> sorted(probes["positive"][0].lower().split()) == sorted(probes["negative"][0].lower().split())
        True
    """
    check_whole("per_kind", per_kind)
    rows = []
    for kind in KINDS:
        patterns = [(pattern, fillers) for of, fillers, group in _GROUPS if of == kind for pattern in group]
        random = Random(f"{kind} {seed}")
        for number, (pattern, fillers) in enumerate(patterns):
            probes = _probes(pattern, fillers)
            count = per_kind // len(patterns) + (number < per_kind % len(patterns))
            if count > len(probes):
                raise ValueError(f"per_kind={per_kind} is more than the patterns of {kind!r} can give")
            rows += [probe | {"kind": kind} for probe in random.sample(probes, count)]
    return Dataset.from_list(rows)


def _probes(pattern: Pattern, fillers: tuple[str, ...]) -> list[dict[str, str]]:
    """Everything that a pattern can say."""
    sentence, paraphrase = pattern
    people = _PEOPLE if "{who}" in sentence else ("",)
    return [
        {
            "anchor": _sentence(sentence.format(a=a, b=b, who=who)),
            "positive": _sentence(paraphrase.format(a=a, b=b, who=who)),
            "negative": _sentence(paraphrase.format(a=b, b=a, who=who)),
        }
        for who in people
        for a, b in permutations(fillers, 2)
    ]


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]

"""Vietnamese text drawn as small document images, and the OCR rows made of them."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from itertools import islice
from math import ceil, radians, sin
from typing import Any, Literal

import numpy as np
from datasets import Dataset

from st_vi.checks import check_choice
from st_vi.data.generated.shared import side_of, to_dataset
from st_vi.data.sample_sets import Split
from st_vi.text import mend

try:
    from PIL import Image as Picture
    from PIL import ImageColor, ImageDraw, ImageFilter, ImageFont
except ImportError as error:
    raise ImportError('Drawing text needs Pillow: pip install "st-vi[vision]"') from error

Layout = Literal["sign", "page", "columns", "title"]

LAYOUTS: tuple[Layout, ...] = ("sign", "page", "columns", "title")
"""One centred block; left-aligned lines; two columns; a larger centred first line above the rest."""

MIN_FONT_SIZE = 12
"""Pixels. Smaller, the marks of ẫ, ẵ and ả look alike."""

Face = tuple[str, str]
"""A font package and a face of it, as in `FACES`; or "" and the path of a file."""

# Upright and slanted faces in which every Vietnamese letter has a glyph; other faces of the two packages lack some.
FACES: tuple[Face, ...] = (
    ("font_source_sans_pro", "SourceSansPro-Regular"),
    ("font_source_sans_pro", "SourceSansPro-Semibold"),
    ("font_source_sans_pro", "SourceSansPro-Bold"),
    ("font_source_sans_pro", "SourceSansPro-It"),
    ("font_source_serif_pro", "SourceSerifPro-Regular"),
    ("font_source_serif_pro", "SourceSerifPro-Semibold"),
    ("font_source_serif_pro", "SourceSerifPro-Bold"),
)

QUESTIONS: tuple[str, ...] = (
    "Trong ảnh viết gì?",
    "Đọc chữ trong ảnh.",
    "Dòng chữ trong ảnh là gì?",
    "Hãy chép lại chữ trong bức ảnh này.",
    "Ảnh này ghi nội dung gì?",
    "Bạn đọc được gì trong ảnh?",
)

# (left, top, text, font), relative to the box of the text.
_Line = tuple[float, float, str, ImageFont.FreeTypeFont]


def render_text(
    text: str,
    seed: int,
    *,
    size: tuple[int, int] = (112, 112),
    noise: float = 0.04,
    max_rotation: float = 4.0,
    layout: Layout | None = None,
) -> Picture.Image:
    """Draw text as a small document image.

    The seed determines font, size, colours, angle, blur and noise. Text, seed and settings determine every pixel
    on one version of Pillow. The contrast of ink and paper is at least 4.5 (WCAG) before noise.

    Args:
        text: Any Vietnamese text; line breaks start new lines, other white space separates words.
        seed: Another seed gives another look.
        size: Width and height in pixels, each at least 32.
        noise: 0 (clean) to 0.3: deviation of the grain as a share of full brightness; blur and specks grow with it.
        max_rotation: 0 to 30 degrees, to either side. Rotated text stays inside the image.
        layout: One of `LAYOUTS`; None lets the seed choose one that suits the length of the text.

    Returns:
        An RGB image of that size.

    Raises:
        ValueError: Empty text, a character without a glyph, text that does not fit in the smallest font, or a
            setting out of range.
        ImportError: The font packages are not installed.

    Example:
        >>> from st_vi.data.generated.render import render_text
        >>> render_text("Tiệm bánh Đồng Quê", seed=0).size
        (112, 112)
        >>> render_text("Nghỉ lễ", seed=0, size=(32, 32), layout="columns")
        Traceback (most recent call last):
        ValueError: the text does not fit into 32 x 32 pixels as 'columns', even at font size 12: 'Nghỉ lễ'
    """
    _check_settings(size, noise, max_rotation, layout)
    paragraphs = _paragraphs(text)
    rng = random.Random(f"{seed} {paragraphs}")
    face, angle = rng.choice(_faces("".join(map("".join, paragraphs)))), rng.uniform(-max_rotation, max_rotation)
    if layout is None:
        layout = rng.choice(LAYOUTS if sum(map(len, paragraphs)) > 8 else LAYOUTS[:2])
    paper, ink = _colours(rng)

    # A box of the text this much smaller than the image stays inside it at this angle.
    width, height = size
    margin, tilt = 0.04 * min(size), sin(radians(abs(angle)))
    box = (width - 2 * margin - height * tilt, height - 2 * margin - width * tilt)
    lines = _fit(paragraphs, layout, face, box, round(min(size) * rng.uniform(0.14, 0.26)))  # type: ignore[arg-type]
    if lines is None:
        raise ValueError(
            f"the text does not fit into {width} x {height} pixels as {layout!r}, even at font size {MIN_FONT_SIZE}: "
            f"{_shorten(text)}"
        )
    mask = Picture.new("L", size)
    draw = ImageDraw.Draw(mask)
    for x, y, line, font in lines:
        draw.text(((width - box[0]) / 2 + x, (height - box[1]) / 2 + y), line, fill=255, font=font)
    picture = Picture.new("RGB", size, paper)
    picture.paste(ink, mask=mask.rotate(angle, Picture.Resampling.BICUBIC))
    return _worn(picture, noise, rng) if noise else picture


def ocr_rows(texts: Iterable[str], seed: int, **settings: Any) -> Dataset:
    """One OCR row per text: a question, the image of the text, the text.

    Args:
        texts: See `render_text`.
        seed: Seed of the looks and of the wording of the questions.
        **settings: Keyword arguments of `render_text`.

    Returns:
        Columns `anchor` (question), `anchor_image`, `positive` (the text in NFC, with single spaces), `task` ("ocr").

    Raises:
        ValueError: What `render_text` raises, with the number of the row; no texts.

    Example:
        >>> from st_vi.data.generated.render import ocr_rows
        >>> rows = ocr_rows(["Quán phở Hoa Sữa", "Số 12 phố Bình Minh"], seed=0)
        >>> rows.column_names
        ['anchor', 'anchor_image', 'positive', 'task']
        >>> rows["positive"][1]
        'Số 12 phố Bình Minh'
    """
    return to_dataset(_rows(texts, seed, settings))


def rendered_words(split: Split, seed: int, **settings: Any) -> Iterator[dict[str, Any]]:
    """An endless stream of OCR rows with short phrases, composed of this module's words.

    A hash of the phrase assigns it to training or testing, so that no phrase is on both sides, whatever the seeds;
    single words are. There are 19,464 phrases, a fifth of them for testing.

    Args:
        split: "train" or "test".
        seed: Another seed gives other phrases and looks.
        **settings: Keyword arguments of `render_text`.

    Raises:
        ValueError: An unknown split; what `render_text` raises.

    Example:
        >>> from st_vi.data.generated.render import rendered_words
        >>> row = next(rendered_words("train", seed=0))
        >>> row["task"], row["anchor_image"].size
        ('ocr', (112, 112))
    """
    check_choice("split", split, Split)
    return _rows(_phrases(split, seed), seed, settings)


def word_rows(split: Split, count: int, seed: int, **settings: Any) -> Dataset:
    """The first `count` (at least 1) rows of `rendered_words` as a dataset; a phrase may come up twice.

    Example:
        >>> from st_vi.data.generated.render import word_rows
        >>> len(word_rows("test", 3, seed=0))
        3
    """
    return to_dataset(islice(rendered_words(split, seed, **settings), count))


# Settings and text


def _check_settings(size: tuple[int, int], noise: float, max_rotation: float, layout: Layout | None) -> None:
    if min(size) < 32:
        raise ValueError(f"size must be at least 32 x 32 pixels, got {size}")
    if not 0 <= noise <= 0.3:
        raise ValueError(f"noise must lie between 0 and 0.3, got {noise}")
    if not 0 <= max_rotation <= 30:
        raise ValueError(f"max_rotation must lie between 0 and 30 degrees, got {max_rotation}")
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)} or None, got {layout!r}")


def _paragraphs(text: str) -> list[list[str]]:
    lines = [line.split() for line in mend(text).splitlines()]
    paragraphs = [words for words in lines if words]
    if not paragraphs:
        raise ValueError("the text to draw is empty")
    return paragraphs


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}…")


def _faces(characters: str) -> list[Face]:
    """The faces that can draw every character."""
    missing = {face: [c for c in sorted(set(characters)) if not _has_glyph(face, c)] for face in FACES}
    faces = [face for face in FACES if not missing[face]]
    if not faces:
        face = min(FACES, key=lambda face: len(missing[face]))
        named = ", ".join(f"{character!r} (U+{ord(character):04X})" for character in missing[face][:5])
        raise ValueError(f"no font can draw this text; {face[1]} lacks {named}")
    return faces


@cache
def _has_glyph(face: Face, character: str) -> bool:
    # A mark that NFC leaves on its own would be drawn beside its letter, and a character without width not at all.
    if unicodedata.combining(character) or not character.isprintable():
        return False
    font = font_of(face, 32)
    absent, mask = font.getmask("\U0010ffff"), font.getmask(character)
    return (mask.size, bytes(mask)) != (absent.size, bytes(absent))


@cache
def font_of(face: Face, size: int) -> ImageFont.FreeTypeFont:
    """A face in a size in pixels."""
    package, name = face
    try:
        path = str(files(package) / "files" / f"{name}.ttf") if package else name
    except ModuleNotFoundError as error:
        raise ImportError('The fonts are not installed: pip install "st-vi[vision]"') from error
    # NFC Vietnamese needs no shaping, and the basic engine draws the same with and without libraqm.
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


# Setting lines


def _fit(
    paragraphs: list[list[str]], layout: Layout, face: Face, box: tuple[float, float], size: int
) -> list[_Line] | None:
    """Lines at the largest size up to `size` that fits the box; None if not even the smallest does."""
    for smaller in range(max(size, MIN_FONT_SIZE), MIN_FONT_SIZE - 1, -1):
        if (lines := _typeset(paragraphs, layout, face, box, smaller)) is not None:
            return lines
    return None


def _typeset(
    paragraphs: list[list[str]], layout: Layout, face: Face, box: tuple[float, float], size: int
) -> list[_Line] | None:
    width, height = box
    font, step, top = font_of(face, size), _line_height(face, size), 0.0
    lines: list[_Line] = []
    if layout == "title":
        title, paragraphs = _split_title(paragraphs)
        larger = font_of(face, round(1.3 * size))
        heading = _wrap([title], larger, width)
        if heading is None:
            return None
        title_step = _line_height(face, round(1.3 * size))
        lines = _centred(heading, larger, width, title_step)
        top = title_step * len(heading) + 0.3 * step
    columns = 2 if layout == "columns" else 1
    column = (width - (columns - 1) * size) / columns
    wrapped = _wrap(paragraphs, font, column)
    if wrapped is None:
        return None
    rows = ceil(len(wrapped) / columns)
    free = height - top - rows * step
    if free < 0:
        return None
    if layout == "sign":
        return [(x, free / 2 + y, text, face) for x, y, text, face in _centred(wrapped, font, width, step)]
    for number, line in enumerate(wrapped):
        lines.append((number // rows * (column + size), top + number % rows * step, line, font))
    return lines


def _centred(texts: list[str], font: ImageFont.FreeTypeFont, width: float, step: float) -> list[_Line]:
    return [((width - font.getlength(text)) / 2, row * step, text, font) for row, text in enumerate(texts)]


def _split_title(paragraphs: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """The first line, or the first sentence of a text of one line, and the rest."""
    first, *rest = paragraphs
    if rest:
        return first, rest
    end = next((number for number, word in enumerate(first, 1) if word[-1] in ".!?:"), len(first))
    return first[:end], [first[end:]] if first[end:] else []


def _wrap(paragraphs: list[list[str]], font: ImageFont.FreeTypeFont, width: float) -> list[str] | None:
    """Greedy line breaks; None if a word alone is too wide."""
    lines = []
    for words in paragraphs:
        line = ""
        for word in words:
            longer = f"{line} {word}".lstrip()
            if font.getlength(longer) <= width:
                line = longer
                continue
            if font.getlength(word) > width:
                return None
            lines.append(line)
            line = word
        lines.append(line)
    return lines


def _line_height(face: Face, size: int) -> int:
    return sum(font_of(face, size).getmetrics())


# Colours and wear


def _colours(rng: random.Random) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Paper and ink, one of them light and the other dark."""
    light = _hsl(rng, saturation=60, lightness=(90, 98))
    dark = _hsl(rng, saturation=80, lightness=(4, 18))
    return (dark, light) if rng.random() < 0.15 else (light, dark)


def _hsl(rng: random.Random, saturation: float, lightness: tuple[float, float]) -> tuple[int, ...]:
    hue, saturation, light = rng.uniform(0, 360), rng.uniform(0, saturation), rng.uniform(*lightness)
    return ImageColor.getrgb(f"hsl({hue:.1f}, {saturation:.1f}%, {light:.1f}%)")


def _worn(picture: Picture.Image, noise: float, rng: random.Random) -> Picture.Image:
    """Blur, specks and grain that grow with `noise`."""
    # More blur than this joins a mark and its letter at the smallest font size.
    blurred = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, min(10 * noise, 0.8))))
    grain = np.random.default_rng(rng.getrandbits(64))
    pixels: np.ndarray = np.asarray(blurred, dtype=np.float32)
    specks = grain.random(pixels.shape[:2]) < 0.1 * noise
    pixels = np.where(specks[..., None], grain.uniform(0, 255, (*specks.shape, 1)), pixels)
    pixels = pixels + grain.normal(0, 255 * noise, pixels.shape)
    return Picture.fromarray(pixels.clip(0, 255).round().astype(np.uint8))


# Rows


def _rows(texts: Iterable[str], seed: int, settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    rng = random.Random(f"rows {seed}")
    for number, text in enumerate(texts):
        try:
            image = render_text(text, rng.getrandbits(32), **settings)
        except ValueError as error:
            raise ValueError(f"row {number}: {error}") from error
        positive = "\n".join(" ".join(words) for words in _paragraphs(text))
        yield {"anchor": rng.choice(QUESTIONS), "anchor_image": image, "positive": positive, "task": "ocr"}


def _phrases(split: Split, seed: int) -> Iterator[str]:
    rng = random.Random(f"{split} {seed}")
    while True:
        phrase = _phrase(rng)
        if side_of(phrase) == split:
            yield phrase


def _phrase(rng: random.Random) -> str:
    match rng.randrange(4):
        case 0:
            return f"{rng.choice(_SHOPS)} {rng.choice(_NAMES)}"
        case 1:
            return f"Số {rng.randint(1, 99)} {rng.choice(_STREETS)} {rng.choice(_NAMES)}"
        case 2:
            return f"{rng.choice(_ANIMALS)} {rng.choice(_MOODS)} {rng.choice(_SPOTS)}"
        case _:
            return f"{rng.choice(_THINGS)} {rng.choice(_LOOKS)} {rng.choice(_SPOTS)}"


def _items(joined: str) -> tuple[str, ...]:
    return tuple(joined.split("|"))


_SHOPS = _items(
    "Quán phở|Quán cơm|Quán chè|Quán bún chả|Quán cà phê|Tiệm bánh|Tiệm vàng|Tiệm may|Tiệm giặt ủi|Hiệu sách|"
    "Hiệu thuốc|Hiệu ảnh|Nhà hàng|Nhà trọ|Nhà nghỉ|Khách sạn|Phòng khám|Xưởng gỗ|Xưởng gốm|Lò bánh mì|"
    "Cửa hàng hoa|Cửa hàng sữa|Chợ nổi|Trường mẫu giáo|Thư viện"
)
_NAMES = _items(
    "Bình Minh|Hoa Sữa|Đồng Quê|Hương Lúa|Sông Trăng|Thanh Thủy|Ngọc Bích|Kim Liên|Hải Âu|Mỹ Lệ|Tuổi Thơ|Phượng Vĩ|"
    "Cỏ May|Ước Mơ|Nắng Hạ|Gió Đông|Suối Mơ|Đại Dương|Hoàng Yến|Bảo Ngọc|Tre Việt|Lá Phong|Sao Khuê|Vườn Ổi"
)
_STREETS = _items("phố|đường|ngõ|hẻm")
_ANIMALS = _items(
    "con mèo|con chó|con trâu|con vịt|con gà|con ngựa|con thỏ|chú khỉ|chú voi|chú ếch|đàn cá|bầy ong|con bướm|"
    "con quạ|con rùa|con cừu|con hổ|chú nhím"
)
_MOODS = _items("lười|hiền|đói|khỏe|buồn ngủ|nhanh nhẹn|vui vẻ|ngơ ngác|dữ tợn|nhút nhát|mệt mỏi|tinh nghịch")
_THINGS = _items(
    "cái ghế|cái bàn|chiếc nón|chiếc thuyền|chiếc xe đạp|quyển vở|cây bút|ngọn đèn|cái chổi|bức tượng|chậu hoa|"
    "chiếc giỏ|cái trống|tấm thảm|chiếc gương|bình nước|hòm thư|chiếc ô"
)
_LOOKS = _items("cũ|mới|đẹp|vỡ|nặng|nhẹ|bằng gỗ|bằng đồng|rất rẻ|sạch sẽ|bám bụi|lộng lẫy|mỏng|dày")
_SPOTS = _items(
    "trong bếp|ngoài sân|bên cửa sổ|dưới gốc cây|giữa vườn|trên bãi cỏ|cạnh bờ hồ|trước cổng|sau nhà|gần giếng|"
    "ở chợ|ở bến xe|trên đồi|dưới mái hiên|bên dòng suối|ở sân trường|trong rừng|trên bãi biển|dưới chân cầu|"
    "cuối con đường"
)

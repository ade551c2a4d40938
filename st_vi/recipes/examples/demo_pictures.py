"""Sixty images, found by what they show: the demo of the included viPolyQwen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
from sentence_transformers import SentenceTransformer

from st_vi.data.generated.lines import TEST_FACES, draw_lines
from st_vi.data.generated.scenes import caption, draw, scene, scene_rows
from st_vi.hub import load
from st_vi.recipes.sight.looks import look
from st_vi.text import strip_diacritics

if TYPE_CHECKING:
    from PIL import Image

MODEL = "poly-mini"
COUNT = 60
SIGNS = (
    "Quán phở Hoa Sữa",
    "Nhà sách Ánh Dương",
    "Sửa xe máy",
    "Cà phê vườn",
    "Bệnh viện Nhi",
    "Trường tiểu học Kim Đồng",
    "Cấm hút thuốc",
    "Bán vé tàu",
    "Chợ nổi Cái Răng",
    "Bánh mì nóng giòn",
    "Giặt ủi lấy ngay",
    "Phòng khám răng",
    "Bến xe Miền Tây",
    "Trà đá vỉa hè",
    "Hoa tươi mỗi ngày",
    "Cho thuê nhà trọ",
    "Bảo tàng Lịch sử",
    "Lối ra bãi biển",
    "Tiệm vàng Kim Phát",
    "Bưu điện thành phố",
)
EMOJI = {
    "mèo": "🐱",
    "chó": "🐶",
    "cá": "🐟",
    "chuối": "🍌",
    "dưa hấu": "🍉",
    "nho": "🍇",
    "mặt trời": "☀",
    "trái tim đỏ": "❤",
    "ô tô": "🚗",
    "xe đạp": "🚲",
    "máy bay": "✈",
    "nhà": "🏠",
    "cây thông": "🌲",
    "hoa hồng": "🌹",
    "bóng đá": "⚽",
    "điện thoại di động": "📱",
    "đồng hồ báo thức": "⏰",
    "cái ô": "☂",
    "bánh sinh nhật": "🎂",
    "cái kéo": "✂",
}
FONTS = (
    Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"),
    Path("/usr/share/fonts/noto/NotoColorEmoji.ttf"),
    Path("/usr/share/fonts/google-noto-color-emoji-fonts/NotoColorEmoji.ttf"),
)
"""Where distributions keep the colour emoji; without them there are more scenes."""
_BITMAP = 109  # the one size that the font has, in pixels


@dataclass(frozen=True)
class Shown:
    """An image of the demo, of the kind "scene", "text" or "emoji", and what it shows."""

    kind: str
    text: str
    picture: Image.Image


@dataclass(frozen=True)
class Answer:
    """A query, what the image that came first shows, its cosine, and whether it is the one that was meant."""

    query: str
    found: str
    score: float
    right: bool


@dataclass(frozen=True)
class PictureDemo:
    """What the demo shows.

    Attributes:
        answers: To six queries, every second one without diacritics.
        found: Share of the images that come first for their own text, with diacritics and without, by kind.
        question: Of one image.
        options: Its possible answers with their cosines, best first.
        answer: The right one.
    """

    pictures: Sequence[Shown]
    answers: Sequence[Answer]
    found: dict[str, tuple[float, float]]
    question: str
    options: Sequence[tuple[str, float]]
    answer: str


def run_picture_demo(model: SentenceTransformer | None = None, folder: Path | None = None) -> PictureDemo:
    """Encode sixty images with the included "poly-mini" and find them by what they show; trains nothing.

    The images are saved in the folder, if there is one.
    """
    model = load(MODEL, device="cpu") if model is None else model
    pictures = list(demo_pictures())
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for number, one in enumerate(pictures, 1):
            one.picture.save(folder / f"{number:02d}-{one.kind}.png")
    seen = _encode(model, [one.picture for one in pictures])
    texts = [one.text for one in pictures]
    queries = {"": texts, "bare": [strip_diacritics(text).lower() for text in texts]}
    cosines = {name: _encode(model, asked) @ seen.T for name, asked in queries.items()}
    first = {name: values.argmax(axis=1) for name, values in cosines.items()}
    kinds = np.array([one.kind for one in pictures])
    rows = np.arange(len(pictures))
    found = {
        kind: tuple(float((first[name] == rows)[kinds == kind].mean()) for name in ("", "bare"))
        for kind in dict.fromkeys(kinds.tolist())
    }
    chosen = [int(np.flatnonzero(kinds == kind)[number]) for kind in found for number in (0, 1)]
    answers = []
    for place, row in enumerate(chosen):
        name = "bare" if place % 2 else ""
        best = int(first[name][row])
        answers.append(Answer(queries[name][row], texts[best], float(cosines[name][row, best]), best == row))
    asked = scene_rows("test", 1, seed=8, tasks=("vqa_single",), options=True)[0]
    picture = {"image": asked["anchor_image"], "text": asked["anchor"]}
    scores = _encode(model, asked["options"]) @ _encode(model, [picture], prompt_name="vqa_single")[0]
    order = np.argsort(-scores)
    options = [(asked["options"][number], float(scores[number])) for number in order]
    return PictureDemo(pictures, answers, found, asked["anchor"], options, asked["positive"])  # type: ignore[arg-type]


def demo_pictures(count: int = COUNT) -> Iterator[Shown]:
    """Signs in faces that were not trained on, emoji where a font has them, and scenes of the test side.

    They are the same every time on one machine. Most of the emoji were trained on, in other looks.
    """
    from PIL import Image

    for number, sign in enumerate(SIGNS):
        drawn = draw_lines(sign, Random(number), faces=TEST_FACES)
        yield Shown("text", sign, Image.fromarray(drawn.pixels))
    emoji = list(_emoji())
    yield from emoji
    for number in range(count - len(SIGNS) - len(emoji)):
        found = scene("test", number)
        yield Shown("scene", caption(found, number), draw(found))


def _emoji() -> Iterator[Shown]:
    from PIL import Image, ImageDraw, ImageFont

    file = next((font for font in FONTS if font.is_file()), None)
    if file is None:
        return
    font = ImageFont.truetype(str(file), _BITMAP)
    for name, letter in EMOJI.items():
        picture = Image.new("RGBA", (136, 128), (0, 0, 0, 0))
        ImageDraw.Draw(picture).text((0, 0), letter, font=font, embedded_color=True)
        yield Shown("emoji", name, Image.fromarray(look(picture, Random(name), 84)))


def _encode(model: SentenceTransformer, inputs: Sequence[Any], **settings: Any) -> np.ndarray:
    found: Any = model.encode(list(inputs), normalize_embeddings=True, **settings)
    return found.astype(np.float32)  # type: ignore[no-any-return]

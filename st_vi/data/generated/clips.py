"""Short clips of a shape that moves, grows, shrinks or changes colour; their captions need the order of the frames."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, product
from typing import TYPE_CHECKING, Any, Literal, get_args

from datasets import Dataset

from st_vi.checks import check_choice
from st_vi.data.generated.scenes import COLOURS, GRID, KINDS, PLACES, RADII, Shape, draw_shapes
from st_vi.data.generated.shared import side_of, to_dataset
from st_vi.data.sample_sets import Split

if TYPE_CHECKING:
    from PIL.Image import Image

Change = Literal["move", "size", "colour"]
CHANGES: tuple[Change, ...] = get_args(Change)
FRAMES = 8
FRAME_SIZE = 84
"""Pixels: three of Qwen2-VL's visual tokens, one for each cell of the grid."""

_LANES = (("ở hàng trên", "ở hàng giữa", "ở hàng dưới"), ("ở cột trái", "ở cột giữa", "ở cột phải"))
_PATHS = (("từ trái sang phải", "từ phải sang trái"), ("từ trên xuống dưới", "từ dưới lên trên"))
_WORDINGS: dict[Change, tuple[str, ...]] = {
    "move": (
        "{a} {place} di chuyển {path}.",
        "{place} có {a} đi {path}.",
        "đoạn phim quay {a} {place} chạy {path}.",
    ),
    "size": (
        "{a} {place} {end} dần.",
        "{place} có {a} mỗi lúc một {end}.",
        "{a} {place} lúc đầu {start}, sau thì {end}.",
    ),
    "colour": (
        "{a} {place} đổi từ màu {start} sang màu {end}.",
        "{place} có {a} lúc đầu màu {start}, sau thì màu {end}.",
        "{a} {place} đang màu {start} thì chuyển thành màu {end}.",
    ),
}


@dataclass(frozen=True)
class Clip:
    """A shape at the beginning and at the end; exactly one of colour, size and position differs.

    A position changes along a whole row or column of the grid.

    Attributes:
        start: The shape in the first frame.
        end: The shape in the last frame.

    Raises:
        ValueError: It is another kind of shape in the end, or something else than one of the three differs.

    Example:
        >>> from st_vi.data.generated.clips import Clip
        >>> from st_vi.data.generated.scenes import Shape
        >>> clip = Clip(Shape("hình tròn", "đỏ", "to", (0, 0)), Shape("hình tròn", "đỏ", "to", (0, 2)))
        >>> clip.change, clip.reversed.start.position
        ('move', (0, 2))
    """

    start: Shape
    end: Shape

    def __post_init__(self) -> None:
        a, b = self.start, self.end
        differs = [a.position != b.position, a.size != b.size, a.colour != b.colour]
        steps = [abs(i - j) for i, j in zip(a.position, b.position, strict=True)]
        if a.kind != b.kind or sum(differs) != 1 or sorted(steps) not in ([0, 0], [0, 2]):
            raise ValueError(f"exactly one of position (by a whole row or column), size and colour changes: {a}, {b}")

    @property
    def change(self) -> Change:
        """What changes."""
        if self.start.position != self.end.position:
            return "move"
        return "size" if self.start.size != self.end.size else "colour"

    @property
    def reversed(self) -> Clip:
        """The clip that has the same frames in the opposite order."""
        return Clip(self.end, self.start)


def draw_clip(clip: Clip, frames: int = FRAMES, size: int = FRAME_SIZE) -> list[Image]:
    """The frames of a clip, RGB images of `size` x `size` pixels; deterministic.

    Positions and sizes change evenly from frame to frame, a colour at once in the middle. Reversed, they are the frames
    of ``clip.reversed``.

    Args:
        clip: What to draw.
        frames: Number of frames, at least 2 and even, so that the colours have equally many.
        size: At least 48.

    Raises:
        ValueError: An argument out of range.

    Example:
        >>> from st_vi.data.generated.clips import clips, draw_clip
        >>> clip = clips("train")[0]
        >>> draw_clip(clip)[::-1] == draw_clip(clip.reversed)
        True
    """
    if frames < 2 or frames % 2:
        raise ValueError(f"frames must be an even number from 2 on, got {frames}")
    half = frames // 2
    # The second half is drawn from its end, so that the reverse has the same pixels, whatever the rounding.
    first, last = ([_frame(one, i / (frames - 1), size) for i in range(half)] for one in (clip, clip.reversed))
    return first + last[::-1]


def clip_caption(clip: Clip, seed: int) -> str:
    """A Vietnamese caption that is wrong for the reversed clip; `seed` selects the wording.

    Example:
        >>> from st_vi.data.generated.clips import Clip, clip_caption
        >>> from st_vi.data.generated.scenes import Shape
        >>> clip = Clip(Shape("hình tròn", "đỏ", "to", (0, 0)), Shape("hình tròn", "đỏ", "to", (0, 2)))
        >>> clip_caption(clip, seed=2)
        'Hình tròn đỏ ở hàng trên di chuyển từ trái sang phải.'
        >>> clip_caption(clip.reversed, seed=2)
        'Hình tròn đỏ ở hàng trên di chuyển từ phải sang trái.'
    """
    start, end = clip.start, clip.end
    words = {"a": start.name, "place": PLACES[start.position]}
    if clip.change == "move":
        down = int(start.position[1] == end.position[1])  # and not across
        words["place"] = _LANES[down][start.position[down]]
        words["path"] = _PATHS[down][int(start.position > end.position)]
    elif clip.change == "size":
        words |= {"start": start.size, "end": end.size}
    else:
        words |= {"a": start.kind, "start": start.colour, "end": end.colour}
    wording = random.Random(f"caption {seed}").choice(_WORDINGS[clip.change])
    text = wording.format(**words)
    return text[0].upper() + text[1:]


@cache
def clips(split: Split) -> tuple[Clip, ...]:
    """All clips of a side: every clip is followed by its reverse.

    A hash of what is in the frames, whatever their order, assigns a clip and its reverse to one side.

    Raises:
        ValueError: An unknown split.

    Example:
        >>> from st_vi.data.generated.clips import clips
        >>> len(clips("train")) + len(clips("test"))
        3720
    """
    check_choice("split", split, Split)
    pairs = [pair for pair in _pairs() if side_of(f"{pair.start} {pair.end}") == split]
    return tuple(clip for pair in pairs for clip in (pair, pair.reversed))


def clip_rows(
    split: Split,
    count: int,
    seed: int,
    direction: Literal["text_to_video", "video_to_text"] = "text_to_video",
    *,
    changes: Sequence[Change] = CHANGES,
    negatives: bool = False,
    shuffled: bool = False,
    size: int = FRAME_SIZE,
) -> Dataset:
    """Clips and their captions: every clip is followed by its reverse, which has the opposite caption.

    Args:
        split: "train" or "test", as in `clips`.
        count: An even number; at most as many clips as there are. The kinds of change come in turn.
        seed: Another seed gives other clips and wordings.
        direction: What the anchor and the positive are.
        changes: Some of `CHANGES`.
        negatives: Add the reverse as a hard negative: what the caption would describe if the order of frames did not
            matter, and for a clip the caption of its reverse.
        shuffled: Shuffle the frames of each clip, as a control: what can be told without their order.
        size: Size of the frames, in pixels.

    Returns:
        Columns `anchor` (the caption), `positive` (""), `positive_video` (the frames), with `negatives` also `negative`
        and `negative_video`, and `task` ("video"); or `anchor` (""), `anchor_video`, `positive`, perhaps `negative`,
        and `task`.

    Raises:
        ValueError: An unknown split, direction or change; `count` is odd, below 2 or more than there are; `size` below
            48.

    Example:
        >>> from st_vi.data.generated.clips import clip_rows
        >>> rows = clip_rows("test", 2, seed=0, negatives=True)
        >>> rows.column_names
        ['anchor', 'positive', 'positive_video', 'negative', 'negative_video', 'task']
        >>> rows["positive_video"][0] == rows["negative_video"][1]
        True
    """
    if direction not in ("text_to_video", "video_to_text"):
        raise ValueError(f"direction must be 'text_to_video' or 'video_to_text', got {direction!r}")
    chosen = _drawn(split, count, seed, changes)
    rng = random.Random(f"frames {seed}")
    rows = []
    for number, clip in enumerate(chosen):
        # A clip and its reverse have one wording: words alone shall not tell them apart.
        sides = [(clip_caption(one, seed + number // 2), draw_clip(one, size=size)) for one in (clip, clip.reversed)]
        if shuffled:
            sides = [(text, rng.sample(frames, len(frames))) for text, frames in sides]
        rows.append(_row(sides if negatives else sides[:1], direction))
    return to_dataset(rows)


def _row(sides: Sequence[tuple[str, list[Image]]], direction: str) -> dict[str, Any]:
    (caption, frames), *others = sides
    row: dict[str, Any]
    if direction == "text_to_video":
        row = {"anchor": caption, "positive": "", "positive_video": frames}
        for _, of_reverse in others:
            row |= {"negative": "", "negative_video": of_reverse}
    else:
        row = {"anchor": "", "anchor_video": frames, "positive": caption}
        for opposite, _ in others:
            row |= {"negative": opposite}
    return row | {"task": "video"}


def _drawn(split: Split, count: int, seed: int, changes: Sequence[Change]) -> list[Clip]:
    """Clips, each followed by its reverse, the kinds of change in turn."""
    for change in changes:
        check_choice("changes", change, Change)
    pairs = {change: [clip for clip in clips(split)[::2] if clip.change == change] for change in changes}
    rng = random.Random(f"clips {split} {seed}")
    for of_change in pairs.values():
        rng.shuffle(of_change)
    most = 2 * sum(map(len, pairs.values()))
    if count % 2 or not 2 <= count <= most:
        raise ValueError(
            f"count must be an even number from 2 to {most} for {split!r} and {list(changes)}, got {count}"
        )
    found: list[Clip] = []
    while len(found) < count:
        for of_change in pairs.values():
            if of_change and len(found) < count:
                clip = of_change.pop()
                clip = clip.reversed if rng.random() < 0.5 else clip
                found += [clip, clip.reversed]
    return found


@cache
def _pairs() -> tuple[Clip, ...]:
    """Every clip in one of its two directions."""
    found = []
    for kind, colour in product(KINDS, COLOURS):
        for lane in range(GRID):
            for ends in (((lane, 0), (lane, GRID - 1)), ((0, lane), (GRID - 1, lane))):
                found.append(Clip(*(Shape(kind, colour, "to", place) for place in ends)))
        for place in PLACES:
            found.append(Clip(Shape(kind, colour, "nhỏ", place), Shape(kind, colour, "to", place)))
    for kind, place, (first, second) in product(KINDS, PLACES, combinations(COLOURS, 2)):
        found.append(Clip(Shape(kind, first, "to", place), Shape(kind, second, "to", place)))
    return tuple(found)


def _frame(clip: Clip, share: float, size: int) -> Image:
    """The frame after a share, up to a half, of the clip."""
    row, column = (a + share * (b - a) for a, b in zip(clip.start.position, clip.end.position, strict=True))
    first, last = RADII[clip.start.size], RADII[clip.end.size]
    return draw_shapes([(clip.start, (row, column), first + share * (last - first))], size)

"""Images of coloured shapes with Vietnamese captions, questions and answers."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, permutations, product
from math import cos, pi, sin
from typing import Any, Literal

import numpy as np
from datasets import Dataset

from st_vi.checks import check_choice, check_whole
from st_vi.data.generated.shared import side_of, to_dataset
from st_vi.data.sample_sets import Split

try:
    from PIL import Image as Picture
    from PIL import ImageDraw
except ImportError as error:
    raise ImportError('Drawing scenes needs Pillow: pip install "st-vi[vision]"') from error

KINDS: tuple[str, ...] = ("hình tròn", "hình vuông", "hình tam giác", "hình chữ nhật", "ngôi sao")
COLOURS: dict[str, tuple[int, int, int]] = {
    "đỏ": (214, 39, 40),
    "cam": (255, 140, 20),
    "vàng": (250, 214, 0),
    "xanh lá cây": (34, 150, 60),
    "xanh dương": (40, 90, 220),
    "tím": (130, 50, 170),
    "hồng": (255, 130, 190),
    "đen": (20, 20, 20),
}
BACKGROUND = (236, 236, 230)
SIZES: tuple[str, ...] = ("nhỏ", "to")
RADII: dict[str, float] = {"nhỏ": 0.26, "to": 0.44}
"""Radius of a shape as a share of the side of its cell."""
GRID = 3
"""Shapes stand in the cells of a grid of 3 x 3, at most one in each."""
PLACES: dict[tuple[int, int], str] = {
    (0, 0): "ở góc trên bên trái",
    (0, 1): "ở giữa cạnh trên",
    (0, 2): "ở góc trên bên phải",
    (1, 0): "ở giữa cạnh trái",
    (1, 1): "ở chính giữa",
    (1, 2): "ở giữa cạnh phải",
    (2, 0): "ở góc dưới bên trái",
    (2, 1): "ở giữa cạnh dưới",
    (2, 2): "ở góc dưới bên phải",
}
"""Names of the cells (row, column)."""
NUMBERS: tuple[str, ...] = ("không", "một", "hai", "ba", "bốn", "năm", "sáu")
MAX_SHAPES = len(NUMBERS) - 1
TASKS: tuple[str, ...] = ("vqa_single", "vqa_multi", "instr")
DESCRIBE = ("Mô tả bức ảnh này.", "Trong ảnh có gì?", "Hãy tả lại bức ảnh.", "Viết một câu về bức ảnh.")

_SIDES = ("bên trái", "bên phải", "phía trên", "phía dưới")


@dataclass(frozen=True)
class Shape:
    """One shape.

    Attributes:
        kind: One of `KINDS`.
        colour: One of `COLOURS`.
        size: "nhỏ" or "to".
        position: Row and column, from the top left, 0 to 2 each.

    Raises:
        ValueError: Any other value.

    Example:
        >>> from st_vi.data.generated.scenes import Shape
        >>> Shape("hình tròn", "đỏ", "to", (0, 2)).name
        'hình tròn đỏ'
    """

    kind: str
    colour: str
    size: str
    position: tuple[int, int]

    def __post_init__(self) -> None:
        known = {"kind": KINDS, "colour": COLOURS, "size": SIZES, "position": PLACES}
        for field, values in known.items():
            if getattr(self, field) not in values:
                raise ValueError(f"{field} must be one of {', '.join(map(str, values))}, got {getattr(self, field)!r}")

    @property
    def name(self) -> str:
        """Kind and colour."""
        return f"{self.kind} {self.colour}"


@dataclass(frozen=True)
class Scene:
    """One to six shapes, each in its own cell. The order of the shapes does not matter for equality.

    Raises:
        ValueError: No shapes, more than six, or two in one cell.

    Example:
        >>> from st_vi.data.generated.scenes import Scene, Shape
        >>> star, circle = Shape("ngôi sao", "tím", "to", (2, 2)), Shape("hình tròn", "đỏ", "nhỏ", (0, 0))
        >>> Scene((star, circle)) == Scene((circle, star))
        True
    """

    shapes: tuple[Shape, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.shapes) <= MAX_SHAPES:
            raise ValueError(f"a scene has 1 to {MAX_SHAPES} shapes, got {len(self.shapes)}")
        if len({shape.position for shape in self.shapes}) < len(self.shapes):
            raise ValueError("two shapes stand in one cell")
        object.__setattr__(self, "shapes", tuple(sorted(self.shapes, key=lambda shape: shape.position)))

    @cached_property
    def groups(self) -> dict[str, tuple[Shape, ...]]:
        """Shapes by name (kind and colour), names in alphabetical order."""
        names = sorted({shape.name for shape in self.shapes})
        return {name: tuple(shape for shape in self.shapes if shape.name == name) for name in names}

    @property
    def composition(self) -> str:
        """What there is, whatever its sizes and places: "1 hình tròn đỏ, 2 ngôi sao tím"."""
        return ", ".join(f"{len(shapes)} {name}" for name, shapes in self.groups.items())


@dataclass(frozen=True)
class Question:
    """A question about a scene.

    Attributes:
        topic: "count", "content", "kind", "colour", "place", "size" or "side".
        wordings: Ways to ask it.
        answer: A full sentence.
        options: All answers that the question could have in any scene, including the right one.
        subject: The shape that the question is about; None if it is not about one shape.
        follow_up: The wording for a dialogue that is already about the subject ("nó").
    """

    topic: str
    wordings: tuple[str, ...]
    answer: str
    options: tuple[str, ...]
    subject: Shape | None = None
    follow_up: str | None = None


def scene(split: Split, seed: int) -> Scene:
    """Two or three groups of equal shapes, one to three in a group, six shapes at most; one group is a single shape.

    A hash of the scene's `composition` assigns it to training or testing, so that neither an image nor an inventory
    ("one red circle, two purple stars") is on both sides, whatever the seeds.

    Args:
        split: "train" or "test".
        seed: Another seed gives another scene.

    Raises:
        ValueError: An unknown split.

    Example:
        >>> from st_vi.data.generated.scenes import scene
        >>> scene("train", 0) == scene("train", 0) != scene("test", 0)
        True
    """
    check_choice("split", split, Split)
    rng = random.Random(f"{split} {seed}")
    while True:
        counts = [1, *rng.choices((1, 2, 3), weights=(3, 2, 1), k=rng.choice((1, 2, 2)))]
        names = rng.sample([*product(KINDS, COLOURS)], len(counts))
        cells = rng.sample(sorted(PLACES), sum(counts)) if sum(counts) <= MAX_SHAPES else []
        each = [name for name, count in zip(names, counts, strict=True) for _ in range(count)]
        shapes = [Shape(*name, rng.choice(SIZES), cell) for name, cell in zip(each, cells, strict=False)]
        if shapes and side_of((found := Scene(tuple(shapes))).composition) == split:
            return found


def draw(scene: Scene, size: int = 112) -> Picture.Image:
    """The scene as an RGB image of `size` x `size` pixels (at least 48); deterministic.

    Raises:
        ValueError: `size` too small.

    Example:
        >>> from st_vi.data.generated.scenes import draw, scene
        >>> draw(scene("train", 0), size=56).size
        (56, 56)
    """
    return draw_shapes([(shape, shape.position, RADII[shape.size]) for shape in scene.shapes], size)


def shape_patches(scene: Scene, shape: Shape, rows: int, columns: int, size: int = 112) -> np.ndarray:
    """Which patches of a drawn scene show a shape: boolean, (rows, columns).

    Args:
        scene: With the shape.
        shape: One of its shapes.
        rows: Number of rows of patches.
        columns: Number of columns of patches.
        size: As for `draw`; a multiple of `rows` and `columns`.

    Raises:
        ValueError: The scene does not have the shape, or the patches do not divide the image.

    Example:
        >>> from st_vi.data.generated.scenes import Scene, Shape, shape_patches
        >>> circle = Shape("hình tròn", "đỏ", "nhỏ", (0, 0))
        >>> shape_patches(Scene((circle,)), circle, 2, 2).tolist()
        [[True, False], [False, False]]
    """
    if shape not in scene.shapes:
        raise ValueError(f"the scene has no {shape}")
    if size % rows or size % columns:
        raise ValueError(f"{rows} x {columns} patches do not divide {size} pixels")
    others = tuple(other for other in scene.shapes if other != shape)
    without = draw(Scene(others), size) if others else Picture.new("RGB", (size, size), BACKGROUND)
    differs = (np.asarray(draw(scene, size)) != np.asarray(without)).any(axis=-1)
    found: np.ndarray = differs.reshape(rows, size // rows, columns, size // columns).any(axis=(1, 3))
    return found


def caption(scene: Scene, seed: int) -> str:
    """A Vietnamese description: the whole inventory and, where possible, a relation or a place.

    Args:
        scene: What to describe.
        seed: Selects the wording, and what is added to the inventory.

    Example:
        >>> from st_vi.data.generated.scenes import Scene, Shape, caption
        >>> two = Shape("hình tròn", "đỏ", "to", (0, 0)), Shape("hình vuông", "xanh dương", "nhỏ", (0, 2))
        >>> caption(Scene(two), seed=4)
        'Một hình tròn đỏ nằm bên trái một hình vuông xanh dương.'
    """
    rng = random.Random(f"caption {seed} {scene}")
    names = rng.sample([*scene.groups], len(scene.groups))
    phrases = {name: _counted(name, len(scene.groups[name])) for name in names}
    related = [(a, side, b) for a, b in permutations(names, 2) for side in _sides(scene.groups[a], scene.groups[b])]
    if related and rng.random() < 0.7:
        first, side, second = rng.choice(related)
        text = rng.choice(("{a} nằm {side} {b}", "{a} ở {side} {b}", "{side} {b} là {a}", "{side} {b} có {a}"))
        text = text.format(a=phrases[first], side=side, b=phrases[second])
        rest = [phrases[name] for name in names if name not in (first, second)]
        if rest:
            text += rng.choice((", ngoài ra còn có {}", ", và có thêm {}", "; trong ảnh còn có {}")).format(
                _listed(rest)
            )
        return _sentence(text)
    text = rng.choice(("trong ảnh có {}", "bức ảnh vẽ {}", "ảnh này có {}", "ta thấy {} trong ảnh", "{}"))
    text = _sentence(text.format(_listed([phrases[name] for name in names])))
    single = rng.choice([shapes[0] for shapes in scene.groups.values() if len(shapes) == 1] or [None])
    if single is None or rng.random() < 0.3:
        return text
    return f"{text} {_sentence(f'{single.name} nằm {PLACES[single.position]}')}"


def questions(scene: Scene) -> list[Question]:
    """Every question with exactly one answer in this scene.

    Example:
        >>> from st_vi.data.generated.scenes import Scene, Shape, questions
        >>> found = questions(Scene((Shape("ngôi sao", "tím", "to", (1, 1)),)))
        >>> {question.topic: question.answer for question in found}["colour"]
        'Ngôi sao trong ảnh màu tím.'
    """
    single = [shapes[0] for shapes in scene.groups.values() if len(shapes) == 1]
    found = [_count(scene, kind, colour) for kind, colour in _countable(scene)]
    for shape in scene.shapes:
        found.append(_content(shape))
        if sum(other.kind == shape.kind for other in scene.shapes) == 1:
            found.append(_colour(shape))
        if sum(other.colour == shape.colour for other in scene.shapes) == 1:
            found.append(_kind(shape))
    for shape in single:
        found += [_place(shape), _size(shape)]
        found += [_relation(shape, other) for other in single if _direction(shape, other)]
    return found


def scene_stream(
    split: Split, seed: int, tasks: Sequence[str] = TASKS, *, size: int = 112, options: bool = False
) -> Iterator[dict[str, Any]]:
    """An endless stream of rows about scenes, the tasks in turn; columns as in `scene_rows`.

    Raises:
        ValueError: An unknown split, an unknown task or none, or `size` too small.
    """
    check_choice("split", split, Split)
    if not tasks or not set(tasks) <= set(TASKS):
        raise ValueError(f"tasks must be some of {', '.join(TASKS)}, got {tasks!r}")
    return _stream(split, seed, tasks, size, options)


def scene_rows(
    split: Split, count: int, seed: int, tasks: Sequence[str] = TASKS, *, size: int = 112, options: bool = False
) -> Dataset:
    """`count` rows about as many scenes.

    "vqa_single" asks one question, "vqa_multi" the last question of a dialogue of two or three turns that says
    "nó" for what the earlier turns are about, and "instr" asks for a caption.

    Args:
        split: "train" or "test", as in `scene`.
        count: At least 1.
        seed: Another seed gives other rows.
        tasks: Some of `TASKS`, in turn.
        size: Size of the images, in pixels.
        options: Add the column `options`: all answers the question could have (for "instr" the caption alone).

    Returns:
        Columns `anchor` (question, or "Hỏi: … Đáp: … Hỏi: …"), `anchor_image`, `positive` (a full sentence),
        perhaps `options`, and `task`.

    Raises:
        ValueError: An unknown split or task, or `count` or `size` too small.

    Example:
        >>> from st_vi.data.generated.scenes import scene_rows
        >>> rows = scene_rows("test", 4, seed=0, tasks=["vqa_single", "vqa_multi"])
        >>> rows.column_names
        ['anchor', 'anchor_image', 'positive', 'task']
        >>> rows["task"][1], rows["anchor"][1].startswith("Hỏi: ")
        ('vqa_multi', True)
    """
    check_whole("count", count)
    return to_dataset(islice(scene_stream(split, seed, tasks, size=size, options=options), count))


def caption_rows(
    split: Split,
    count: int,
    seed: int,
    direction: Literal["image_to_text", "text_to_image"] = "image_to_text",
    *,
    size: int = 112,
    task: str = "instr",
) -> Dataset:
    """Images and captions without instructions, for retrieval; both directions hold the same pairs.

    Args:
        split: "train" or "test", as in `scene`.
        count: At least 1.
        seed: Another seed gives other rows.
        direction: What the anchor and the positive are. The two kinds of rows belong in separate datasets and batches:
            a column of a batch holds one kind.
        size: Size of the images, in pixels.
        task: Name of the task.

    Returns:
        Columns `anchor` (""), `anchor_image`, `positive`, `task`; or `anchor`, `positive` (""), `positive_image`,
        `task`.

    Raises:
        ValueError: An unknown split or direction, or `count` or `size` too small.

    Example:
        >>> from st_vi.data.generated.scenes import caption_rows
        >>> caption_rows("train", 2, seed=0, direction="text_to_image").column_names
        ['anchor', 'positive', 'positive_image', 'task']
    """
    if direction not in ("image_to_text", "text_to_image"):
        raise ValueError(f"direction must be 'image_to_text' or 'text_to_image', got {direction!r}")
    check_whole("count", count)
    check_choice("split", split, Split)
    rng = random.Random(f"captions {seed}")
    rows = []
    for _ in range(count):
        found = scene(split, rng.getrandbits(48))
        text, image = caption(found, rng.getrandbits(48)), draw(found, size)
        if direction == "image_to_text":
            rows.append({"anchor": "", "anchor_image": image, "positive": text, "task": task})
        else:
            rows.append({"anchor": text, "positive": "", "positive_image": image, "task": task})
    return to_dataset(rows)


# Shapes on paper


def draw_shapes(shapes: Iterable[tuple[Shape, tuple[float, float], float]], size: int) -> Picture.Image:
    """Shapes anywhere on paper of `size` x `size` pixels: each at a row and column, with a radius in cells."""
    if size < 48:
        raise ValueError(f"size must be at least 48 pixels, got {size}")
    smooth = 4
    picture = Picture.new("RGB", (smooth * size, smooth * size), BACKGROUND)
    cell = smooth * size / GRID
    for shape, (row, column), radius in shapes:
        _draw_shape(ImageDraw.Draw(picture), shape, ((column + 0.5) * cell, (row + 0.5) * cell), cell * radius)
    return picture.reduce(smooth)


def _draw_shape(pen: ImageDraw.ImageDraw, shape: Shape, centre: tuple[float, float], radius: float) -> None:
    colour, (x, y) = COLOURS[shape.colour], centre
    if shape.kind == "hình tròn":
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    elif shape.kind in ("hình vuông", "hình chữ nhật"):
        half = 0.85 * radius if shape.kind == "hình vuông" else 0.45 * radius
        wide = 0.85 * radius if shape.kind == "hình vuông" else radius
        pen.rectangle((x - wide, y - half, x + wide, y + half), fill=colour)
    else:
        # A star is a pentagon with a dent between every two corners.
        radii = (radius,) * 3 if shape.kind == "hình tam giác" else (radius, 0.42 * radius) * 5
        turn = 2 * pi / len(radii)
        pen.polygon([(x + r * sin(i * turn), y - r * cos(i * turn)) for i, r in enumerate(radii)], fill=colour)


# Sentences


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _counted(name: str, count: int) -> str:
    return f"{NUMBERS[count]} {name}"


def _listed(phrases: list[str]) -> str:
    return " và ".join([", ".join(phrases[:-1]), phrases[-1]] if phrases[1:] else phrases)


def _sides(first: Sequence[Shape], second: Sequence[Shape]) -> list[str]:
    """The sides of all of `second` on which all of `first` are."""
    (rows, columns), (other_rows, other_columns) = (
        zip(*(shape.position for shape in shapes), strict=True) for shapes in (first, second)
    )
    holds = (
        max(columns) < min(other_columns),
        min(columns) > max(other_columns),
        max(rows) < min(other_rows),
        min(rows) > max(other_rows),
    )
    return [side for side, true in zip(_SIDES, holds, strict=True) if true]


def _direction(first: Shape, second: Shape) -> str | None:
    """The side of `second` on which `first` is; None if it is diagonal."""
    sides = _sides([first], [second])
    return sides[0] if len(sides) == 1 else None


# Questions


def _countable(scene: Scene) -> list[tuple[str, str]]:
    """Kinds and colours ("" for any) to count, including combinations that do not occur."""
    kinds = sorted({shape.kind for shape in scene.shapes})
    colours = sorted({shape.colour for shape in scene.shapes})
    return [*product(kinds, colours), *((kind, "") for kind in kinds), *(("", colour) for colour in colours)]


def _count(scene: Scene, kind: str, colour: str) -> Question:
    name = f"{kind} {colour}" if kind and colour else kind or f"hình màu {colour}"
    matching = [shape for shape in scene.shapes if kind in ("", shape.kind) and colour in ("", shape.colour)]
    options = tuple(
        f"Có {_counted(name, count)}." if count else f"Không có {name} nào." for count in range(MAX_SHAPES + 1)
    )
    wordings = (f"Có bao nhiêu {name}?", f"Trong ảnh có mấy {name}?", f"Đếm xem có mấy {name}.")
    return Question("count", wordings, options[len(matching)], options)


def _content(shape: Shape) -> Question:
    place = PLACES[shape.position]
    options = {(kind, colour): _sentence(f"{place} có một {kind} {colour}") for kind, colour in product(KINDS, COLOURS)}
    wordings = _question(f"{place} có gì"), f"Có gì {place} của bức ảnh?", f"Hình nằm {place} là hình gì, màu gì?"
    return _about("content", shape, wordings, options, (shape.kind, shape.colour))


def _kind(shape: Shape) -> Question:
    colour = shape.colour
    options = {kind: f"Hình màu {colour} trong ảnh là {kind}." for kind in KINDS}
    wordings = f"Hình màu {colour} là hình gì?", f"Hình nào trong ảnh có màu {colour}?"
    return _about("kind", shape, wordings, options, shape.kind, "Nó là hình gì?")


def _colour(shape: Shape) -> Question:
    options = {colour: _sentence(f"{shape.kind} trong ảnh màu {colour}") for colour in COLOURS}
    wordings = _question(f"{shape.kind} có màu gì"), f"Màu của {shape.kind} là gì?"
    return _about("colour", shape, wordings, options, shape.colour, "Nó màu gì?")


def _place(shape: Shape) -> Question:
    options = {cell: _sentence(f"{shape.name} nằm {place}") for cell, place in PLACES.items()}
    wordings = _question(f"{shape.name} nằm ở đâu"), f"Tìm vị trí của {shape.name}."
    return _about("place", shape, wordings, options, shape.position, "Nó nằm ở đâu?")


def _size(shape: Shape) -> Question:
    options = {size: _sentence(f"{shape.name} này {size}") for size in SIZES}
    wordings = _question(f"{shape.name} to hay nhỏ"), _question(f"{shape.name} có kích thước thế nào")
    return _about("size", shape, wordings, options, shape.size, "Nó to hay nhỏ?")


def _relation(shape: Shape, other: Shape) -> Question:
    asked = f"nằm phía nào của {other.name}"
    options = {side: _sentence(f"{shape.name} nằm {side} {other.name}") for side in _SIDES}
    wordings = _question(f"{shape.name} {asked}"), f"So với {other.name}, {shape.name} nằm ở phía nào?"
    return _about("side", shape, wordings, options, _direction(shape, other), f"Nó {asked}?")


def _about(
    topic: str,
    shape: Shape,
    wordings: tuple[str, ...],
    options: Mapping[Any, str],
    right: Any,
    follow_up: str | None = None,
) -> Question:
    return Question(topic, wordings, options[right], tuple(options.values()), shape, follow_up)


def _question(text: str) -> str:
    return f"{_sentence(text)[:-1]}?"


# Rows


def _stream(split: Split, seed: int, tasks: Sequence[str], size: int, options: bool) -> Iterator[dict[str, Any]]:
    rng = random.Random(f"scenes {seed}")
    while True:
        for task in tasks:
            found = scene(split, rng.getrandbits(48))
            anchor, positive, choices = _turns(found, task, rng)
            row = {"anchor": anchor, "anchor_image": draw(found, size), "positive": positive}
            yield row | ({"options": list(choices)} if options else {}) | {"task": task}


def _turns(scene: Scene, task: str, rng: random.Random) -> tuple[str, str, tuple[str, ...]]:
    """Anchor, positive and options of one row."""
    if task == "instr":
        text = caption(scene, rng.getrandbits(48))
        return rng.choice(DESCRIBE), text, (text,)
    if task == "vqa_multi":
        return _dialogue(scene, rng)
    question = draw_question(questions(scene), rng)
    return rng.choice(question.wordings), question.answer, question.options


def draw_question(asked: Sequence[Question], rng: random.Random) -> Question:
    """One question; topics are equally likely, though some have many questions."""
    topic = rng.choice(sorted({question.topic for question in asked}))
    return rng.choice([question for question in asked if question.topic == topic])


# What an opening question and its answer already tell.
_TOLD = {"content": {"content", "place", "kind", "colour"}, "kind": {"kind", "colour"}, "colour": {"kind", "colour"}}


def draw_opening(scene: Scene, rng: random.Random) -> tuple[Question, list[Question]]:
    """A question that finds a shape, and those about the shape whose answers it does not tell."""
    asked = questions(scene)
    single = {shapes[0] for shapes in scene.groups.values() if len(shapes) == 1}
    opening = draw_question([q for q in asked if q.topic in _TOLD and q.subject in single], rng)
    told = _TOLD[opening.topic]
    return opening, [q for q in asked if q.subject == opening.subject and q.follow_up and q.topic not in told]


def _dialogue(scene: Scene, rng: random.Random) -> tuple[str, str, tuple[str, ...]]:
    """An opening question, perhaps a turn about its shape, and a last one."""
    opening, left = draw_opening(scene, rng)
    turns: list[tuple[str | None, str]] = [(rng.choice(opening.wordings), opening.answer)]
    last = draw_question(left, rng)
    # A place tells sides, and a side narrows down the place: such a turn before the last would give it away.
    middle = [q for q in left if q.topic != last.topic and {q.topic, last.topic} != {"place", "side"}]
    if middle and rng.random() < 0.5:
        between = draw_question(middle, rng)
        turns.append((between.follow_up, between.answer))
    context = " ".join(f"Hỏi: {question} Đáp: {answer}" for question, answer in turns)
    return f"{context} Hỏi: {last.follow_up}", last.answer, last.options

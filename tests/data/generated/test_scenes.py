"""Scenes: what is drawn, said, asked and answered is true, by readings that share no code with the generator."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice

import numpy as np
import pytest

from st_vi.data.generated.scenes import (
    BACKGROUND,
    COLOURS,
    KINDS,
    NUMBERS,
    PLACES,
    Scene,
    Shape,
    caption,
    caption_rows,
    draw,
    questions,
    scene,
    scene_rows,
    scene_stream,
    shape_patches,
)

SCENES = [scene(split, seed) for split in ("train", "test") for seed in range(150)]
KIND = f"(?:{'|'.join(KINDS)})"
COLOUR = f"(?:{'|'.join(COLOURS)})"
NUMBER = f"(?:{'|'.join(NUMBERS[1:])})"
PLACE = f"(?:{'|'.join(PLACES.values())})"
BETWEEN = {
    "bên trái": lambda a, b: a[1] < b[1],
    "bên phải": lambda a, b: a[1] > b[1],
    "phía trên": lambda a, b: a[0] < b[0],
    "phía dưới": lambda a, b: a[0] > b[0],
}
SIDE = f"({'|'.join(BETWEEN)})"


def cells(scene, name):
    return [shape.position for shape in scene.shapes if f"{shape.kind} {shape.colour}" == name]


def only(values):
    (value,) = values
    return value


def truth(scene, answer):
    """Whether a full-sentence answer holds in the scene; sentences of no known form raise."""
    text = answer[0].lower() + answer[1:]
    read = lambda pattern: re.fullmatch(pattern, text)  # noqa: E731
    counted = f"({KIND})?(?: ?(?:hình màu )?({COLOUR}))?"
    if found := read(f"có ({NUMBER}) {counted}\\.") or read(f"(không) có {counted} nào\\."):
        number, kind, colour = found.groups()
        matching = [s for s in scene.shapes if kind in (None, s.kind) and colour in (None, s.colour)]
        return len(matching) == NUMBERS.index(number)
    if found := read(f"({PLACE}) có một ({KIND}) ({COLOUR})\\."):
        return any((PLACES[s.position], s.kind, s.colour) == found.groups() for s in scene.shapes)
    if found := read(f"hình màu ({COLOUR}) trong ảnh là ({KIND})\\."):
        return only(s.kind for s in scene.shapes if s.colour == found[1]) == found[2]
    if found := read(f"({KIND}) trong ảnh màu ({COLOUR})\\."):
        return only(s.colour for s in scene.shapes if s.kind == found[1]) == found[2]
    if found := read(f"({KIND} {COLOUR}) nằm ({PLACE})\\."):
        return PLACES[only(cells(scene, found[1]))] == found[2]
    if found := read(f"({KIND} {COLOUR}) này (to|nhỏ)\\."):
        return only(s.size for s in scene.shapes if f"{s.kind} {s.colour}" == found[1]) == found[2]
    found = read(f"({KIND} {COLOUR}) nằm {SIDE} ({KIND} {COLOUR})\\.")
    first, second = only(cells(scene, found[1])), only(cells(scene, found[3]))
    assert (first[0] == second[0]) != (first[1] == second[1])  # one direction, no diagonal
    return BETWEEN[found[2]](first, second)


def test_every_answer_is_the_one_true_option():
    topics = Counter()
    for found in SCENES:
        for question in questions(found):
            assert [option for option in question.options if truth(found, option)] == [question.answer]
            assert len(set(question.options)) == len(question.options) > 1
            topics[question.topic] += 1
    assert set(topics) == {"count", "content", "kind", "colour", "place", "size", "side"}
    assert min(topics.values()) > 50


def test_questions_name_what_their_answers_are_about():
    for found in SCENES[:60]:
        for question in questions(found):
            for wording in question.wordings:
                named = re.findall(f"{KIND}|{COLOUR}|{PLACE}", wording.lower())
                assert named and all(name in question.answer.lower() for name in named), wording
                assert question.answer not in wording and wording[-1] in "?."
            if question.follow_up:
                assert question.follow_up.startswith("Nó ") and question.subject is not None


@pytest.mark.parametrize("seed", range(4))
def test_captions_tell_the_inventory_and_nothing_false(seed):
    related = placed = 0
    for found in SCENES:
        text = caption(found, seed)
        inventory = {name: NUMBERS.index(n) for n, name in re.findall(f"({NUMBER}) ({KIND} {COLOUR})", text.lower())}
        assert inventory == Counter(f"{s.kind} {s.colour}" for s in found.shapes), text
        number_name = f"{NUMBER} ({KIND} {COLOUR})"
        if match := re.match(f"{number_name} (?:nằm|ở) {SIDE} {number_name}", text.lower()):
            first, side, second = match.groups()
        elif match := re.match(f"{SIDE} {number_name} (?:là|có) {number_name}", text.lower()):
            side, second, first = match.groups()
        if match:
            related += 1
            assert all(BETWEEN[side](a, b) for a in cells(found, first) for b in cells(found, second)), text
        else:
            assert not re.search(f"(?<!góc ){SIDE} {NUMBER}", text), text
        if match := re.search(
            f"\\. ({KIND} {COLOUR}) nằm ({PLACE})\\.$", text.replace(". H", ". h").replace(". N", ". n")
        ):
            placed += 1
            assert PLACES[only(cells(found, match[1]))] == match[2]
    assert related > 80 and placed > 20


def test_pictures_show_the_shapes_where_they_are():
    side = 120
    cell = side // 3
    for found in SCENES[:80]:
        pixels = np.asarray(draw(found, side), dtype=int)
        here = {shape.position: shape for shape in found.shapes}
        for row, column in PLACES:
            tile = pixels[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
            covered = np.abs(tile - BACKGROUND).max(axis=-1) > 8
            if (row, column) not in here:
                assert not covered.any()
                continue
            shape = here[row, column]
            middle = tile[cell // 2, cell // 2]
            assert min(COLOURS, key=lambda name: np.abs(middle - COLOURS[name]).sum()) == shape.colour
            assert not (covered[0].any() or covered[-1].any() or covered[:, 0].any() or covered[:, -1].any())
            assert (np.ptp(np.nonzero(covered)[1]) > cell * 0.6) == (shape.size == "to")


def test_kinds_have_their_outlines():
    covered = {}
    for kind in KINDS:
        pixels = np.asarray(draw(Scene((Shape(kind, "đen", "to", (1, 1)),)), 300), dtype=int)
        rows, columns = np.nonzero(np.abs(pixels - BACKGROUND).max(axis=-1) > 100)
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        covered[kind] = (len(rows) / (height * width), width / height)
    share = {kind: value[0] for kind, value in covered.items()}
    assert share["hình tròn"] == pytest.approx(np.pi / 4, abs=0.02)
    assert share["hình tam giác"] == pytest.approx(0.5, abs=0.02)
    assert share["ngôi sao"] < 0.42
    assert min(share["hình vuông"], share["hình chữ nhật"]) > 0.99
    assert covered["hình vuông"][1] == pytest.approx(1, abs=0.03) and covered["hình chữ nhật"][1] > 1.8


def test_colours_differ_from_the_paper_and_each_other():
    colours = np.array([*COLOURS.values(), BACKGROUND])
    apart = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    assert apart[~np.eye(len(colours), dtype=bool)].min() > 70


def test_training_and_test_share_no_composition_and_no_caption():
    sides = {split: [scene(split, seed) for seed in range(1500)] for split in ("train", "test")}
    inventories = {
        split: {frozenset(Counter((s.kind, s.colour) for s in found.shapes).items()) for found in scenes}
        for split, scenes in sides.items()
    }
    assert not inventories["train"] & inventories["test"]
    captions = {split: {caption(found, 0) for found in scenes} for split, scenes in sides.items()}
    assert not captions["train"] & captions["test"]
    assert len(set(sides["test"])) > 1450 and len(inventories["test"]) > 1000 and len(captions["test"]) > 1300
    for scenes in sides.values():
        assert {len(found.shapes) for found in scenes} == {2, 3, 4, 5, 6}
        assert all(1 in Counter((s.kind, s.colour) for s in found.shapes).values() for found in scenes)


def test_dialogues_need_their_earlier_turns_and_do_not_hold_the_answer():
    rows = list(islice(scene_stream("train", 1, ["vqa_multi"], size=48, options=True), 300))
    lengths = Counter()
    for row in rows:
        turns = re.findall(r"Hỏi: (.+?)(?: Đáp: (.+?))?(?= Hỏi: |$)", row["anchor"])
        assert "".join(f" Hỏi: {q}" + (f" Đáp: {a}" if a else "") for q, a in turns)[1:] == row["anchor"]
        assert all(answer for _, answer in turns[:-1]) and not turns[-1][1]
        assert turns[-1][0].startswith("Nó ") and "nó" not in turns[0][0].lower().split()
        assert row["positive"] not in row["anchor"] and row["positive"] in row["options"]
        told, asked = turns[0][1].lower(), row["positive"].lower()
        assert only(set(re.findall(KIND, told))) in asked or only(set(re.findall(COLOUR, told))) in asked
        lengths[len(turns)] += 1
    assert set(lengths) == {2, 3} and min(lengths.values()) > 50


def test_rows():
    rows = scene_rows("test", 9, seed=3, size=56, options=True)
    assert rows.column_names == ["anchor", "anchor_image", "positive", "options", "task"]
    assert rows["task"] == ["vqa_single", "vqa_multi", "instr"] * 3
    assert all(row["positive"] in row["options"] and row["anchor_image"].size == (56, 56) for row in rows)
    again = scene_rows("test", 9, seed=3, size=56)
    assert again.column_names == ["anchor", "anchor_image", "positive", "task"]
    for one, two in zip(rows, again, strict=True):
        assert {name: one[name] for name in two} == two
    assert scene_rows("test", 9, seed=4, size=56)["positive"] != rows["positive"]


def test_captions_in_both_directions_hold_the_same_pairs():
    images, texts = (caption_rows("train", 5, 2, way, size=48) for way in ("image_to_text", "text_to_image"))
    assert images.column_names == ["anchor", "anchor_image", "positive", "task"]
    assert texts.column_names == ["anchor", "positive", "positive_image", "task"]
    assert images["positive"] == texts["anchor"] and set(images["anchor"]) == set(texts["positive"]) == {""}
    assert list(images["anchor_image"]) == list(texts["positive_image"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scene("dev", 0), "split"),
        (lambda: scene_stream("dev", 0), "split"),
        (lambda: scene_rows("train", 0, 0), "count"),
        (lambda: scene_rows("train", 1, 0, tasks=["ocr"]), "tasks"),
        (lambda: scene_rows("train", 1, 0, tasks=[]), "tasks"),
        (lambda: scene_rows("train", 1, 0, size=20), "size"),
        (lambda: caption_rows("train", 1, 0, "both"), "direction"),
        (lambda: Shape("hình tròn", "trắng", "to", (0, 0)), "colour"),
        (lambda: Shape("hình tròn", "đỏ", "to", (0, 3)), "position"),
        (lambda: Scene(()), "1 to 6"),
        (lambda: Scene((Shape("hình tròn", "đỏ", "to", (0, 0)), Shape("ngôi sao", "đỏ", "to", (0, 0)))), "one cell"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("number", range(6))
def test_patches_of_a_shape_are_those_it_covers(number):
    """Against the outline's own box; every patch that two scenes draw differently, and no other."""
    found = scene("test", number)
    for shape in found.shapes:
        patches = shape_patches(found, shape, 4, 4)
        row, column = shape.position
        half = 112 / 3 * (0.44 if shape.size == "to" else 0.26)
        middle = [(place + 0.5) * 112 / 3 for place in (row, column)]
        first, last = ([int((at + side * (half + 1)) // 28) for at in middle] for side in (-1, 1))
        rows, columns = np.nonzero(patches)
        assert patches.any()
        assert rows.min() >= first[0] and rows.max() <= last[0]
        assert columns.min() >= first[1] and columns.max() <= last[1]
        assert patches[int(middle[0] // 28), int(middle[1] // 28)]


def test_patches_of_what_is_not_there():
    found = scene("test", 0)
    free = next(place for place in PLACES if place not in {shape.position for shape in found.shapes})
    with pytest.raises(ValueError, match="the scene has no"):
        shape_patches(found, Shape("hình tròn", "đỏ", "to", free), 4, 4)
    with pytest.raises(ValueError, match="do not divide"):
        shape_patches(found, found.shapes[0], 5, 4)

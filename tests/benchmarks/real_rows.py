"""Real Vietnamese rows for viPolyQwen: NLI pairs, emoji, driving questions, paragraphs, instructions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from datasets import Dataset, DatasetDict, Features, Value, concatenate_datasets
from datasets import Image as ImageColumn
from PIL import Image

from st_vi.data import read_rows, split_by_anchor
from st_vi.data.generated.render import render_text
from st_vi.data.generated.rows import nli_text_pairs
from st_vi.data.sample_sets import Split
from tests.benchmarks.viclsr import DATA, nli_rows

PARAGRAPH: dict[str, Any] = {"size": (224, 224), "noise": 0.0, "max_rotation": 0.0, "layout": "page"}
WORDS = 40


def text_pairs(split: Split) -> Dataset:
    """All NLI rows, a fifth of the premises for testing."""
    return nli_text_pairs(split_by_anchor(nli_rows(), test_size=0.2, anchor="premise", seed=0)[split])


def real_rows(split: Split, seed: int) -> DatasetDict:
    """One dataset a kind; of the emoji, "seen" and "unseen" for testing."""
    paragraphs = _held_out(read_rows(DATA / "text/d2l_vi_paragraphs.jsonl"), "text", split)
    translated = read_rows(DATA / "instruction/lima_vi.jsonl").filter(lambda row: "TRANSLATION_FAILED" not in str(row))
    instructions = _held_out(translated, "instruction", split)
    begin = [[_begin(text) for text in instructions[column]] for column in ("instruction", "output")]
    return DatasetDict(
        _emoji(split, seed)
        | {
            "driving questions": _driving(split),
            "paragraphs": _paragraphs(paragraphs["text"][:], seed, looks=3 if split == "train" else 1),
            "instructions": Dataset.from_dict(
                {"anchor": begin[0], "positive": begin[1], "task": ["instr"] * len(instructions)}
            ),
        }
    )


def _held_out(rows: Dataset, anchor: str, split: Split) -> Dataset:
    return split_by_anchor(rows, test_size=0.2, anchor=anchor, seed=0)[split]


def _begin(text: str) -> str:
    return " ".join(text.split()[:WORDS])


def _rows(columns: dict[str, Sequence[Any]], task: str) -> Dataset:
    text = Value("string")
    types = {name: ImageColumn() if name.endswith("_image") else text for name in columns}
    size = len(next(iter(columns.values())))
    return Dataset.from_dict(
        {name: list(values) for name, values in columns.items()} | {"task": [task] * size},
        features=Features(types | {"task": text}),
    )


def _emoji(split: Split, seed: int) -> dict[str, Dataset]:
    """Images and names in both directions; training looks differ from test looks even for seen emoji."""
    sides = split_by_anchor(read_rows(DATA / "vision/emoji/emoji.jsonl"), test_size=0.2, anchor="name_vi", seed=0)
    if split == "train":
        return _emoji_rows(sides["train"], f"train {seed}", looks=3, name="emoji")
    seen, unseen = (side.shuffle(seed=0).select(range(200)) for side in (sides["train"], sides["test"]))
    return _emoji_rows(seen, f"test {seed}", 1, "seen emoji") | _emoji_rows(unseen, f"test {seed}", 1, "unseen emoji")


def _emoji_rows(rows: Dataset, seed: str, looks: int, name: str) -> dict[str, Dataset]:
    rng = random.Random(seed)
    pictures = [_look(DATA / "vision/emoji/images" / image, rng) for _ in range(looks) for image in rows["image"]]
    names, empty = rows["name_vi"][:] * looks, [""] * len(pictures)
    return {
        f"{name}: image to name": _rows({"anchor": empty, "anchor_image": pictures, "positive": names}, "instr"),
        f"{name}: name to image": _rows({"anchor": names, "positive": empty, "positive_image": pictures}, "instr"),
    }


def _look(path: Any, rng: random.Random, size: int = 112) -> Image.Image:
    """Another turn, scale, place and paper of the same emoji."""
    side = round(size * rng.uniform(0.6, 0.95))
    emoji = Image.open(path).convert("RGBA").resize((side, side)).rotate(rng.uniform(-25, 25), Image.Resampling.BICUBIC)
    picture = Image.new("RGB", (size, size), tuple(rng.randint(200, 255) for _ in range(3)))
    picture.paste(emoji, tuple(rng.randint(0, size - side) for _ in range(2)), emoji)
    return picture


def _driving(split: Split) -> Dataset:
    rows = _held_out(read_rows(DATA / "vision/driving/questions.jsonl"), "question", split)
    folder = DATA / "vision/driving/images"
    return Dataset.from_dict(
        {
            "anchor": rows["question"][:],
            "anchor_image": [str(folder / image) if image else None for image in rows["image"]],
            "positive": [answers[correct] for answers, correct in zip(rows["answers"], rows["correct"], strict=True)],
            "options": rows["answers"][:],
            "task": ["vqa_single"] * len(rows),
        }
    ).cast_column("anchor_image", ImageColumn())


def _paragraphs(texts: list[str], seed: int, looks: int) -> Dataset:
    """Each paragraph drawn `looks` times, clean and upright; those with a character that no font has are left out."""
    parts = []
    for look in range(looks):
        drawn = []
        for text in texts:
            try:
                drawn.append((text, render_text(text, 10 * seed + look, **PARAGRAPH)))
            except ValueError:
                continue
        kept, pictures = zip(*drawn, strict=True)
        question = ["Văn bản trong ảnh là gì?"] * len(kept)
        parts.append(_rows({"anchor": question, "anchor_image": pictures, "positive": kept}, "ocr"))
    return concatenate_datasets(parts)

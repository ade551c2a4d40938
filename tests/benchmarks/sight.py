"""What a small viPolyQwen reads and sees, on rows that it was not trained on.

    python -m tests.benchmarks.sight                                     # poly-mini
    python -m tests.benchmarks.sight --model outputs/poly-mini/model

Paragraphs, emoji and questions are those of the folder ``ST_VI_DATA`` that the training kept apart: titles by
`split_by_anchor`, emoji and questions by a hash of their text.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer

from st_vi.data import sample_sts, split_by_anchor
from st_vi.data.documents import document_texts
from st_vi.data.generated.lines import TEST_FACES, draw_lines
from st_vi.data.generated.scenes import caption_rows, draw, scene, scene_rows, shape_patches
from st_vi.hub import load, pretrained
from st_vi.inspection.query_maps import query_map
from st_vi.recipes.ablation.tables import markdown
from st_vi.recipes.sight.looks import look
from st_vi.recipes.sight.seeing import for_testing
from st_vi.text import strip_diacritics
from tests.benchmarks.tables import update_docs
from tests.benchmarks.viclsr import DATA

Encode = Callable[..., np.ndarray]
MODEL = "poly-mini"


@cache
def held_out_texts() -> list[str]:
    """Sentences and clauses of Wikipedia articles that were kept apart."""
    with gzip.open(DATA / "open" / "wiki.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = Dataset.from_list([json.loads(line) for line in file])
    rows = split_by_anchor(rows, 0.03, anchor="title", seed=0)["test"]
    return document_texts(rows, 4000, seed=1, shares={"sentence": 0.6, "clause": 0.4})


def phrases(count: int) -> list[str]:
    """Of 4 to 8 syllables, all different."""
    random, found = Random(7), dict[str, None]()
    for text in held_out_texts():
        words = text.split()
        length = random.randint(4, 8)
        if len(words) >= length:
            start = random.randrange(len(words) - length + 1)
            found[" ".join(words[start : start + length]).strip(" .,;:")] = None
    return list(found)[:count]


def drawn_texts(encode: Encode, texts: Sequence[str], asked: int) -> float:
    """Of the first `asked` texts, drawn in faces that were not trained on, how many find themselves first."""
    pictures, own = [], []
    for number, text in enumerate(texts):
        if len(pictures) == asked:
            break
        try:
            pictures.append(Image.fromarray(draw_lines(text, Random(number), faces=TEST_FACES).pixels))
        except ValueError:  # a letter or a word that no line has room for
            continue
        own.append(number)
    return first(encode(pictures), encode(texts), own)


def first(queries: np.ndarray, candidates: np.ndarray, right: Sequence[int], at: int = 1) -> float:
    """Percentage of the queries whose right candidate is among the first `at`."""
    order = np.argsort(-(queries @ candidates.T), axis=1)[:, :at]
    return 100 * float((order == np.array(right)[:, None]).any(axis=1).mean())


def scenes(encode: Encode, count: int = 200) -> tuple[float, float]:
    """Scene to caption, and back."""
    rows = caption_rows("test", count, seed=3)
    pictures, texts = encode(rows["anchor_image"][:]), encode(rows["positive"][:])
    right = range(count)
    return first(pictures, texts, right), first(texts, pictures, right)


def scene_questions(encode: Encode, task: str, count: int = 400) -> tuple[float, float]:
    """The right answer before all others that the question could have; and chance."""
    rows = scene_rows("test", count, seed=5, tasks=(task,), options=True)
    asked = [{"image": row["anchor_image"], "text": row["anchor"]} for row in rows]
    queries = encode(asked, prompt_name=task)
    known = list(dict.fromkeys(option for row in rows for option in row["options"]))
    vectors = dict(zip(known, encode(known), strict=True))
    right = [
        row["options"][int(np.argmax([query @ vectors[option] for option in row["options"]]))] == row["positive"]
        for query, row in zip(queries, rows, strict=True)
    ]
    return 100 * float(np.mean(right)), 100 * float(np.mean([1 / len(row["options"]) for row in rows]))


def emoji(test: bool, count: int = 200) -> tuple[list[str], list[Image.Image]]:
    """Names, all different, and images in looks that were not trained on."""
    folder = DATA / "vision" / "emoji"
    rows = [json.loads(line) for line in (folder / "emoji.jsonl").read_text(encoding="utf-8").splitlines()]
    Random(11).shuffle(rows)
    by_name = {row["name_vi"]: row["image"] for row in rows if for_testing(row["name_vi"]) == test}
    names = list(by_name)[:count]
    pictures = [
        Image.fromarray(look(Image.open(folder / "images" / by_name[name]), Random(f"new {name}"), 84))
        for name in names
    ]
    return names, pictures


def text_alone(encode: Encode) -> dict[str, float]:
    """Question to paragraph (XQuAD) and sentence pairs, as in the table of vi-mini."""
    rows = [json.loads(line) for line in (DATA / "retrieval" / "xquad_vi.jsonl").open(encoding="utf-8")]
    paragraphs = list(dict.fromkeys(row["context"] for row in rows))
    right = [paragraphs.index(row["context"]) for row in rows]
    vectors = encode(paragraphs)
    asked = [row["question"] for row in rows]
    pairs = sample_sts()
    one, two = (encode(pairs[column][:]) for column in ("sentence1", "sentence2"))
    return {
        "question → paragraph": first(encode(asked), vectors, right),
        "the same without diacritics": first(encode([strip_diacritics(text) for text in asked]), vectors, right),
        "STS, Spearman × 100": 100 * float(spearmanr((one * two).sum(axis=1), pairs["score"][:]).statistic),
    }


def ink(model: SentenceTransformer, count: int = 100) -> tuple[float, float]:
    """Share of the pool's weight on cells with ink, of images half of which is empty; and share of such cells."""
    weights, shares = [], []
    backbone: Any = model[0]
    for number, text in enumerate(phrases(count)):
        drawn = draw_lines(text, Random(number), faces=TEST_FACES, columns=14, noise=0.0)
        written = drawn.coverage().sum(axis=1) > 0
        empty = np.broadcast_to(drawn.pixels[:1, :1], drawn.pixels.shape)
        picture = Image.fromarray(np.concatenate([drawn.pixels, empty]))
        features = model.preprocess([picture])
        with torch.no_grad():
            found = model(dict(features))
        place = backbone.patch_positions(features)[0][0].flatten()
        own = found["attention_weights"][0][place].numpy()
        inked = np.concatenate([written, np.zeros_like(written)])
        weights.append(own[inked].sum() / own.sum())
        shares.append(inked.mean())
    return 100 * float(np.mean(weights)), 100 * float(np.mean(shares))


def pointed_at(model: SentenceTransformer, count: int = 200) -> dict[str, float]:
    """Of scenes of three different shapes, and the name of one: how often the largest patch of each map is on it.

    "chance" is the share of the patches that show the shape; "another" is the fall for the name of another shape.
    """
    hits: dict[str, list[float]] = {}
    number = 0
    while len(hits.get("chance", ())) < count:
        found = scene("test", number)
        number += 1
        if len(found.shapes) != 3 or len(found.groups) != 3:
            continue
        shape, other = Random(number).sample(found.shapes, 2)
        picture = draw(found)
        on = shape_patches(found, shape, 4, 4)
        own, another = (
            query_map(model, picture, model.encode(f"Trong ảnh có một {one.name}.", convert_to_tensor=True))
            for one in (shape, other)
        )
        maps = {"fall": own.fall, "similarity": own.similarity, "weight": own.weights, "another": another.fall}
        for name, values in maps.items():
            hits.setdefault(name, []).append(float(on.flat[int(values.argmax())]))
        hits.setdefault("chance", []).append(float(on.mean()))
    return {name: 100 * float(np.mean(values)) for name, values in hits.items()}


def measure(model: SentenceTransformer, only: Sequence[str] = ()) -> list[tuple[str, str, float]]:
    """Rows of the table: what, chance, figure."""

    def encode(inputs: Sequence[Any], **settings: Any) -> np.ndarray:
        return model.encode(list(inputs), batch_size=32, normalize_embeddings=True, **settings).astype(np.float32)  # type: ignore[no-any-return,call-overload,union-attr]

    def text() -> list[tuple[str, str, float]]:
        return [(name, "" if "STS" in name else "0.4", value) for name, value in text_alone(encode).items()]

    def read() -> list[tuple[str, str, float]]:
        sentences = [text for text in held_out_texts() if 40 <= len(text) <= 100][:500]
        return [
            ("a drawn phrase, new faces → its text among 1,000", "0.1", drawn_texts(encode, phrases(1000), 200)),
            ("a drawn sentence, new faces → its text among 500", "0.2", drawn_texts(encode, sentences, 200)),
        ]

    def see() -> list[tuple[str, str, float]]:
        there, back = scenes(encode)
        rows = [("scene → caption, 200", "0.5", there), ("caption → scene, 200", "0.5", back)]
        for task in ("vqa_single", "vqa_multi"):
            right, chance = scene_questions(encode, task)
            rows.append((f"scene question among its own options, {task}", f"{chance:.0f}", right))
        return rows

    def name() -> list[tuple[str, str, float]]:
        rows = []
        for test in (False, True):
            names, pictures = emoji(test)
            shown, called = encode(pictures), encode(names)
            right, kind = range(len(names)), "never seen" if test else "trained on, new looks"
            count = len(names)
            rows += [
                (f"emoji {kind}: name → image among {count}", f"{100 / count:.1f}", first(called, shown, right)),
                (f"emoji {kind}: image → name, first 10", f"{1000 / count:.1f}", first(shown, called, right, 10)),
            ]
        return rows

    def look_at() -> list[tuple[str, str, float]]:
        own, share = ink(model)
        return [("weight of the pool on cells with ink", f"{share:.0f}", own)]

    def point() -> list[tuple[str, str, float]]:
        found = pointed_at(model)
        chance = f"{found['chance']:.0f}"
        return [
            ("largest fall of the cosine on the shape that the query names, of three", chance, found["fall"]),
            ("the same for the query of another shape", chance, found["another"]),
            ("most similar patch on the shape that the query names", chance, found["similarity"]),
            ("largest weight of the pool on that shape", chance, found["weight"]),
        ]

    parts = {"text": text, "read": read, "see": see, "name": name, "ink": look_at, "point": point}
    return [row for part in only or parts for row in parts[part]()]


def main() -> None:
    """Print the table; that of the included model goes into the docs and into its card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--only", nargs="*", default=(), choices=("text", "read", "see", "name", "ink", "point"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.time()
    rows = measure(load(options.model, device="cpu"), options.only)
    table = markdown(["", "chance", options.model], [[what, chance, f"{value:.1f}"] for what, chance, value in rows])
    print(f"{table}\n{time.time() - start:.0f} s")
    if options.model == MODEL and not options.only:
        update_docs("sight", table)
        update_docs("sight", table, Path(pretrained(MODEL)) / "README.md")


if __name__ == "__main__":
    main()

"""The last stages: images of text, scenes, emoji, and questions about images, each with the vector of a text."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from sentence_transformers import SentenceTransformer
from torch import Tensor

from st_vi.data.generated.lines import TRAIN_FACES, draw_lines
from st_vi.data.generated.render import Face
from st_vi.data.generated.scenes import DESCRIBE, Scene, caption, draw, draw_opening, draw_question, questions, scene
from st_vi.data.generated.shared import side_of
from st_vi.recipes.sight.base import Teacher
from st_vi.recipes.sight.letters import cell_tokens, phrase, reading_losses
from st_vi.recipes.sight.looks import fitted, look
from st_vi.recipes.sight.pixels import Reader
from st_vi.recipes.sight.text import Texts
from st_vi.recipes.sight.tower import picture_vectors

if TYPE_CHECKING:
    from PIL.Image import Image

SCENE_PIXELS = 112
TEMPERATURE = 0.05
SEEING: dict[str, float] = {"text": 0.12, "captions": 0.33, "questions": 0.34, "named": 0.2, "asked": 0.01}
"""Of the batches, where nothing has to be read. With text in images from the start, nothing was learned."""
READING: dict[str, float] = {
    "text": 0.18,
    "letters": 0.22,
    "lines": 0.24,
    "captions": 0.08,
    "questions": 0.15,
    "named": 0.12,
    "asked": 0.01,
}
"""Of the batches, of all kinds."""
DEEPER: dict[str, float] = {
    "text": 0.34,
    "letters": 0.08,
    "lines": 0.16,
    "captions": 0.05,
    "questions": 0.18,
    "named": 0.17,
    "asked": 0.02,
}
"""Of the batches, once reading goes well: what then falls short, which is text alone, questions, and names."""
MORE_TEXT: dict[str, float] = {
    "text": 0.60,
    "letters": 0.04,
    "lines": 0.11,
    "captions": 0.02,
    "questions": 0.09,
    "named": 0.12,
    "asked": 0.02,
}
"""Of the batches, at the end: images only as often as it takes not to forget them."""
DIALOGUES = 0.45
"""Of the batches of questions, those with dialogues."""
ALIKE = 0.5
"""Of the batches of named images, those whose names are neighbours of one of them."""
BOTH_WAYS = ("named", "lines")
"""Kinds whose images are looked for by their text: here the choice is trained from the text to the image too."""
_READ = ("Trong ảnh viết gì?", "Đọc chữ trong ảnh.", "Dòng chữ trong ảnh là gì?", "Ảnh này ghi nội dung gì?")


def for_testing(name: str) -> bool:
    """Whether a fifth of all names, by a hash, has this one: what is called so is kept for measuring."""
    return side_of(name) == "test"


class Remembered:
    """A teacher that computes the vector of a text once, and no vector of `known`."""

    def __init__(self, teacher: Teacher, known: Texts) -> None:
        self.teacher = teacher
        self.kept: dict[str, Tensor] = dict(zip(known.texts, known.targets, strict=True))

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(N, D), fp32."""
        new = [text for text in dict.fromkeys(texts) if text not in self.kept]
        if new:
            self.kept.update(zip(new, self.teacher(new).half(), strict=True))
        return torch.stack([self.kept[text] for text in texts]).float()


@dataclass(frozen=True)
class Named:
    """An image file and what it is called: a name, and other words for it."""

    picture: Path
    names: tuple[str, ...]


@dataclass(frozen=True)
class Asked:
    """A question about an image file, the right answer and other ones."""

    picture: Path
    question: str
    answer: str
    others: tuple[str, ...]


@dataclass
class Scenes:
    """Training scenes, images of `size` x `size` pixels that are drawn once and kept in a file."""

    file: Path
    count: int
    seed: int = 0
    size: int = SCENE_PIXELS
    pixels: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        if not self.file.exists():
            new = self.file.with_suffix(".new.npy")
            shape = (self.count, self.size, self.size, 3)
            made = np.lib.format.open_memmap(new, mode="w+", dtype=np.uint8, shape=shape)
            for number in range(self.count):
                made[number] = np.asarray(draw(self.scene(number), self.size))
            made.flush()
            del made  # Windows renames no file that is mapped
            new.rename(self.file)
        self.pixels = np.load(self.file, mmap_mode="r")

    def scene(self, number: int) -> Scene:
        """The scene of this number."""
        return scene("train", self.seed * 1_000_003 + number)


@dataclass
class Seeing:
    """Batches of images, and the vectors that they shall have.

    The model was trained on text and letters, and has eager attention. Named are emoji and the like, and asked are
    questions such as those of a driving test; text is drawn in the faces.
    """

    model: SentenceTransformer
    teacher: Teacher
    known: Texts
    scenes: Scenes
    named: Sequence[Named] = ()
    asked: Sequence[Asked] = ()
    faces: Sequence[Face] = TRAIN_FACES

    def __post_init__(self) -> None:
        self.reader = Reader(self.model)
        self.targets = Remembered(self.teacher, self.known)
        self.texts = self.known.texts
        self.table = self.model[0].model.get_input_embeddings().weight  # type: ignore[union-attr,operator]
        self.lengths = [len(text) for text in self.texts]
        self.opened: dict[Path, Image] = {}

    def lines(self, random: Random, cells: int = 384) -> dict[str, Tensor]:
        """Images of phrases, sentences and paragraphs."""
        columns, rows = random.choice(((5, 1), (8, 1), (11, 1), (11, 1), (14, 1), (14, 2), (14, 3), (8, 3)))
        room = columns * rows
        longest = bisect.bisect_right(self.lengths, room * 3)
        shortest = min(bisect.bisect_left(self.lengths, room * 3 // 2), max(0, longest - 500))
        whole = random.random() < 0.6
        if not longest:  # no text has room as a whole, as in a corpus of long ones
            whole, longest = False, min(500, len(self.texts))
        texts: list[str] = []
        pictures: list[np.ndarray] = []
        drawn: list[tuple[list[int], np.ndarray]] = []
        while len(pictures) < max(8, cells // room):
            text = self.texts[random.randrange(shortest, longest)]
            if not whole:
                text = phrase(text, room * random.randint(4, 7) // 10, random)
            text = " ".join(text.split())
            try:
                picture = draw_lines(text, random, faces=self.faces, columns=columns, rows=rows)
            except ValueError:
                continue
            texts.append(text)
            pictures.append(picture.pixels)
            drawn.append(cell_tokens(self.reader.tokenizer, text, picture))
        prefix, said = self._said("<ocr>", _READ, len(texts), random)
        vectors, seen = picture_vectors(self.model, self.reader(pictures, said, prefix))
        read = reading_losses(seen.flatten(0, 1), self.table, drawn)
        losses = self._to_targets("lines", vectors, texts)
        return losses | {name: 0.3 * value for name, value in read.items()}

    def captions(self, random: Random, size: int = 32) -> dict[str, Tensor]:
        """Scenes and their captions."""
        numbers = random.sample(range(self.scenes.count), min(size, self.scenes.count))
        texts = [caption(self.scenes.scene(number), random.randrange(2)) for number in numbers]
        prefix, said = self._said("<instr>", DESCRIBE, len(texts), random, 0.3)
        pictures = [self.scenes.pixels[number] for number in numbers]
        vectors, _ = picture_vectors(self.model, self.reader(pictures, said, prefix))
        return self._to_targets("captions", vectors, texts)

    def questions(self, random: Random, size: int = 24) -> dict[str, Tensor]:
        """Questions about scenes, topics alike often, and dialogues that say "nó"."""
        dialogue = random.random() < DIALOGUES
        rows: list[tuple[int, str, str, tuple[str, ...]]] = []
        while len(rows) < size:
            number = random.randrange(self.scenes.count)
            rows.append((number, *turns(self.scenes.scene(number), random, dialogue)))
        pictures = [self.scenes.pixels[row[0]] for row in rows]
        prefix = ("<vqa_multi>" if dialogue else "<vqa_single>") if random.random() < 0.8 else None
        vectors, _ = picture_vectors(self.model, self.reader(pictures, [row[1] for row in rows], prefix))
        return self._to_targets("questions", vectors, [row[2] for row in rows], [row[3] for row in rows])

    def of_names(self, random: Random, size: int = 48) -> dict[str, Tensor]:
        """Images with names, each with many looks."""
        rows = self._named_batch(random, size)
        side = random.choice((84, 84, 112))
        pictures = [look(self._open(row.picture), random, side) for row in rows]
        texts = [row.names[0] if random.random() < 0.8 else random.choice(row.names) for row in rows]
        vectors, _ = picture_vectors(self.model, self.reader(pictures, [None] * len(rows)))
        return self._to_targets("named", vectors, texts, [[random.choice(self.named).names[0]] for _ in rows])

    def _named_batch(self, random: Random, size: int) -> list[Named]:
        """Any of them, or one and those whose names mean most nearly the same."""
        size = min(size, len(self.named))
        if random.random() >= ALIKE:
            return random.sample(list(self.named), size)
        one = self.name_vectors[random.randrange(len(self.named))]
        return [self.named[number] for number in (self.name_vectors @ one).topk(size).indices.tolist()]

    @cached_property
    def name_vectors(self) -> Tensor:
        """Of the first names, (N, D)."""
        return self.targets([row.names[0] for row in self.named])

    def of_questions(self, random: Random, size: int = 16) -> dict[str, Tensor]:
        """Photographs and drawings with questions."""
        rows = random.sample(list(self.asked), min(size, len(self.asked)))
        pictures = [fitted(self._open(row.picture), 112) for row in rows]
        vectors, _ = picture_vectors(
            self.model, self.reader(pictures, [row.question[:160] for row in rows], "<vqa_single>")
        )
        return self._to_targets("asked", vectors, [row.answer for row in rows], [row.others for row in rows])

    def step(
        self,
        text: Callable[[Random], dict[str, Tensor]],
        letters: Callable[[Random], dict[str, Tensor]],
        shares: Mapping[str, float] = READING,
    ) -> Callable[[Random], dict[str, Tensor]]:
        """The losses of one batch of one kind, drawn by `shares`; "text" and "letters" are those of earlier stages."""
        kinds = {
            "text": text,
            "letters": letters,
            "lines": self.lines,
            "captions": self.captions,
            "questions": self.questions,
        }
        if self.named:
            kinds["named"] = self.of_names
        if self.asked:
            kinds["asked"] = self.of_questions
        kinds = {kind: step for kind, step in kinds.items() if kind in shares}
        weights = [shares[kind] for kind in kinds]
        return lambda random: kinds[random.choices(list(kinds), weights)[0]](random)

    def _to_targets(
        self, name: str, vectors: Tensor, texts: Sequence[str], options: Sequence[Sequence[str]] | None = None
    ) -> dict[str, Tensor]:
        """1 − cos to the text's vector; the choice of it among the batch's texts, back, and among the row's options."""
        own = [
            [text, *(option for option in others if option != text)]
            for text, others in zip(texts, options or [()] * len(texts), strict=True)
        ]
        known = list(dict.fromkeys(text for row in own for text in row))
        numbers = {text: number for number, text in enumerate(known)}
        candidates = F.normalize(self.targets(known), dim=1)
        right = torch.tensor([numbers[text] for text in texts])
        logits = vectors @ candidates.T
        losses = {
            f"{name}_cosine": 3.0 * (1 - logits[torch.arange(len(texts)), right].mean()),
            f"{name}_which": F.cross_entropy(logits / TEMPERATURE, right),
        }
        if name in BOTH_WAYS:
            losses[f"{name}_back"] = _picture_of_text(logits[:, right].T / TEMPERATURE, right)
        if options:
            among = torch.full_like(logits, -1e4)
            for row, ones in enumerate(own):
                among[row, [numbers[one] for one in ones]] = 0.0
            losses[f"{name}_options"] = F.cross_entropy(logits / TEMPERATURE + among, right)
        return losses

    def _said(
        self, prefix: str, wordings: Sequence[str], count: int, random: Random, share: float = 0.4
    ) -> tuple[str | None, list[str | None]]:
        """Mostly the image alone, at times with the prefix, at times with a question before it."""
        kind = random.random()
        if kind < share:
            return prefix, [random.choice(wordings) for _ in range(count)]
        return (prefix if kind < share + 0.1 else None), [None] * count

    def _open(self, file: Path) -> Image:
        from PIL import Image

        if file not in self.opened:
            picture = Image.open(file).convert("RGBA")
            picture.thumbnail((128, 128))
            self.opened[file] = picture
        return self.opened[file]


def _picture_of_text(logits: Tensor, texts: Tensor) -> Tensor:
    """Cross-entropy of the choice of the image among those of the batch; other images of the same text are none."""
    same = texts[:, None] == texts[None]
    same.fill_diagonal_(False)
    return F.cross_entropy(logits.masked_fill(same, -torch.inf), torch.arange(len(texts)))


def turns(found: Scene, random: Random, dialogue: bool, most: int = 8) -> tuple[str, str, tuple[str, ...]]:
    """A question or a short dialogue about a scene, its answer, and some of the other answers it could have."""
    if dialogue:
        opening, left = draw_opening(found, random)
        last = draw_question(left, random)
        said = f"Hỏi: {random.choice(opening.wordings)} Đáp: {opening.answer} Hỏi: {last.follow_up}"
    else:
        last = draw_question(questions(found), random)
        said = random.choice(last.wordings)
    others = [option for option in last.options if option != last.answer]
    return said, last.answer, tuple(random.sample(others, min(most, len(others))))

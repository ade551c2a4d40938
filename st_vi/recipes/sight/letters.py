"""The second stage: the vision tower learns to read. A cell of a drawn line should be what is written in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from st_vi.data.generated.lines import CELL, TRAIN_FACES, DrawnText, draw_lines
from st_vi.data.generated.render import Face
from st_vi.recipes.sight.pixels import Reader
from st_vi.recipes.sight.tower import even_patches, merged, patch_places
from st_vi.text.variants import vary

TEMPERATURE = 0.07


def cell_tokens(tokenizer: Any, text: str, drawn: DrawnText) -> tuple[list[int], np.ndarray]:
    """The tokens of a text, and what share of every cell's writing each is: (cells, tokens); zero where nothing is."""
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    spans = np.zeros((len(text), len(found["input_ids"])))
    for number, (start, end) in enumerate(found["offset_mapping"]):
        spans[start:end, number] = 1.0
    spans /= np.maximum(spans.sum(axis=1, keepdims=True), 1.0)  # a letter of two pieces is half of each
    area = drawn.coverage() @ spans
    whole = area.sum(axis=1, keepdims=True)
    return found["input_ids"], np.where(whole > 0.15 * CELL * CELL, area / np.maximum(whole, 1.0), 0.0)


def reading_losses(cells: Tensor, table: Tensor, drawn: Sequence[tuple[list[int], np.ndarray]]) -> dict[str, Tensor]:
    """How far cells are from the embeddings of what is written in them.

    With e(w) the embedding of token w, and p_c(w) its share of the writing in cell c, whose target is
    t_c = Σ_w p_c(w) e(w):

        read  = mean over c of ‖x_c − t_c‖² / mean ‖t‖²
        which = mean over c of −Σ_w p_c(w) log softmax_w(cos(x_c, e(w)) / τ)

    where w runs over the tokens of the batch. Cells without writing are left out.

    Args:
        cells: x, (cells of all images, D).
        table: Token embeddings, (V, D), without gradient.
        drawn: Result of `cell_tokens` for each image.
    """
    tokens, numbers = np.unique(np.concatenate([ids for ids, _ in drawn]), return_inverse=True)
    shares = np.zeros((len(cells), len(tokens)), dtype=np.float32)
    row = column = 0
    for ids, part in drawn:
        for place, number in enumerate(numbers[column : column + len(ids)]):
            shares[row : row + len(part), number] += part[:, place]
        row, column = row + len(part), column + len(ids)
    written = torch.from_numpy(shares.sum(axis=1) > 0.5)
    p = torch.from_numpy(shares)[written]
    e = table.detach()[torch.from_numpy(tokens)].float()
    x, target = cells[written].float(), p @ e
    scale = target.pow(2).mean().clamp(min=1e-6)
    logits = F.normalize(x, dim=1) @ F.normalize(e, dim=1).T / TEMPERATURE
    return {
        "read": (x - target).pow(2).mean() / scale,
        "which": -(p * logits.log_softmax(dim=1)).sum(dim=1).mean(),
    }


def alphabet(texts: Sequence[str], least: int = 20) -> dict[str, int]:
    """The letters that occur so often, each with its number; 0 is any other."""
    counts = Counter("".join(texts))
    return {letter: number for number, letter in enumerate(sorted(one for one, n in counts.items() if n >= least), 1)}


def patch_letters(letters: dict[str, int], text: str, drawn: DrawnText) -> np.ndarray:
    """What share of the writing in a patch, a quarter of a cell, each letter is: (patches, letters), cell by cell."""
    area = drawn.coverage(CELL // 2)
    rows, columns = (2 * side // CELL for side in drawn.pixels.shape[:2])
    places = patch_places(torch.tensor([1, rows, columns])).numpy()
    area = area[places[:, 0] * columns + places[:, 1]]
    shares = np.zeros((len(area), len(letters) + 1), dtype=np.float32)
    np.add.at(shares.T, [letters.get(letter, 0) for letter in text], area.T)
    whole = shares.sum(axis=1, keepdims=True)
    return np.where(whole > 0.2 * (CELL // 2) ** 2, shares / np.maximum(whole, 1.0), 0.0)


def add_letters(model: SentenceTransformer, count: int) -> None:
    """Give the tower a layer that names the letters in a patch; `remove_letters` takes it away after the training."""
    first: Any = model[0]
    if not hasattr(first.model.visual, "letters"):
        first.model.visual.letters = nn.Linear(first.model.config.vision_config.embed_dim, count + 1)


def remove_letters(model: SentenceTransformer) -> None:
    """The tower as it was built."""
    first: Any = model[0]
    if hasattr(first.model.visual, "letters"):
        del first.model.visual.letters


def phrase(text: str, words: int, random: Random) -> str:
    """Some neighbouring words of a text, sometimes all in capitals, or typed in another way."""
    parts = text.split()
    start = random.randrange(max(1, len(parts) - max(1, words) + 1))
    found = " ".join(parts[start : start + max(1, words)])
    kind = random.random()
    return found.upper() if kind < 0.06 else vary(found, random) if kind < 0.25 else found


def letters_step(
    model: SentenceTransformer,
    texts: Sequence[str],
    *,
    size: int = 48,
    faces: Sequence[Face] = TRAIN_FACES,
    plain: float = 0.5,
) -> Callable[[Random], dict[str, Tensor]]:
    """The losses of one batch of drawn phrases: the letters in a patch, and the tokens in a cell (`reading_losses`).

    The model has its layer for letters (`add_letters`). A batch has about eight times `size` cells, and the share
    `plain` of the batches is black on white, which is learned first.
    """
    reader, known = Reader(model), alphabet(texts)
    first: Any = model[0]
    visual, table = first.model.visual, first.model.get_input_embeddings().weight

    def step(random: Random) -> dict[str, Tensor]:
        pictures: list[np.ndarray] = []
        drawn: list[tuple[list[int], np.ndarray]] = []
        named: list[np.ndarray] = []
        columns, easy = random.choice((3, 5, 8, 11, 14)), random.random() < plain
        rows = random.choice((1, 1, 1, 2)) if columns > 5 else 1
        while len(pictures) < max(2, size * 8 // (columns * rows)):
            text = phrase(random.choice(texts), columns * rows * random.randint(4, 9) // 10, random)
            try:
                picture = draw_lines(text, random, faces=faces, columns=columns, rows=rows, plain=easy)
            except ValueError:  # too long
                continue
            pictures.append(picture.pixels)
            drawn.append(cell_tokens(reader.tokenizer, text, picture))
            named.append(patch_letters(known, text, picture))
        features = reader.pictures(pictures)
        patches = even_patches(visual, features["pixel_values"], features["image_grid_thw"][0])
        shares = torch.from_numpy(np.concatenate(named))
        written = shares.sum(dim=1) > 0.5
        normed = F.layer_norm(patches.flatten(0, 1)[written], patches.shape[-1:])
        logits = visual.letters(normed).float().log_softmax(dim=1)
        read = reading_losses(merged(visual, patches).flatten(0, 1), table, drawn)
        right = (logits.argmax(dim=1) == shares[written].argmax(dim=1)).float().mean()
        return {
            "letters": -(shares[written] * logits).sum(dim=1).mean(),
            "read": 0.3 * read["read"],
            "which": 0.3 * read["which"],
            "wrong": 1 - right,  # no gradient: a figure
        }

    return step

"""Images of whole cells to what Qwen2-VL reads, without the processor's steps that they do not need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor


class Reader:
    """Makes of images and texts what the `preprocess` of a `Qwen2VLTransformer` makes of them, faster."""

    def __init__(self, model: SentenceTransformer) -> None:
        backbone: Any = model[0]
        self.tokenizer: Any = model.tokenizer
        images = backbone.processor.image_processor
        self.patch, self.merge, self.frames = images.patch_size, images.merge_size, images.temporal_patch_size
        self.mean, self.deviation = (
            np.array(values, dtype=np.float32) for values in (images.image_mean, images.image_std)
        )
        self.marks = self.tokenizer.convert_tokens_to_ids(["<|vision_start|>", "<|image_pad|>", "<|vision_end|>"])
        self.pad = self.tokenizer.pad_token_id

    def pictures(self, pictures: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """``pixel_values`` (patches, values) and ``image_grid_thw`` (pictures, 3) of images of whole cells."""
        patches, grids = zip(*(self._patches(picture) for picture in pictures), strict=True)
        return {
            "pixel_values": torch.from_numpy(np.concatenate(patches)),
            "image_grid_thw": torch.tensor(grids),
        }

    def __call__(
        self, pictures: Sequence[np.ndarray], texts: Sequence[str | None], prefix: str | None = None
    ) -> dict[str, Tensor]:
        """Features of one image and one text each, or no text; a prefix goes before the text."""
        features = self.pictures(pictures)
        start, pad, end = self.marks
        rows = []
        for grid, text in zip(features["image_grid_thw"].tolist(), texts, strict=True):
            words = " ".join(part for part in (prefix, text) if part)
            ids = self.tokenizer(words, add_special_tokens=False)["input_ids"] if words else []
            rows.append([start, *[pad] * (grid[1] * grid[2] // self.merge**2), end, *ids])
        length = max(map(len, rows))
        ids = torch.tensor([row + [self.pad] * (length - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
        return features | {
            "input_ids": ids,
            "attention_mask": mask,
            "mm_token_type_ids": (ids == pad).int() * mask.int(),
        }

    def _patches(self, picture: np.ndarray) -> tuple[np.ndarray, tuple[int, int, int]]:
        height, width, _ = picture.shape
        rows, columns = height // self.patch, width // self.patch
        scaled = (picture.astype(np.float32) / 255 - self.mean) / self.deviation
        size, merge = self.patch, self.merge
        cut = scaled.reshape(rows // merge, merge, size, columns // merge, merge, size, 3)
        cut = cut.transpose(0, 3, 1, 4, 6, 2, 5)  # cells, patches in a cell, channel, rows, columns
        cut = np.repeat(cut[:, :, :, :, :, None], self.frames, axis=5)
        return cut.reshape(rows * columns, -1), (1, rows, columns)

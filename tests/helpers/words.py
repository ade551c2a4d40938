"""A model of a few words in float64, and a training that is interrupted."""

from __future__ import annotations

import torch
from transformers import TrainerCallback


class Stop(TrainerCallback):
    """After three steps."""

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == 3


class Words(torch.nn.Module):
    """The mean of the vectors of the words."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.vectors = torch.nn.Embedding(20, 6, dtype=torch.float64)

    def forward(self, features):
        mask = features["attention_mask"][:, :, None]
        return {"sentence_embedding": (self.vectors(features["input_ids"]) * mask).sum(dim=1) / mask.sum(dim=1)}


def columns_of_words():
    ids = torch.tensor([[[3, 4, 5], [6, 7, 0], [8, 0, 0], [9, 10, 3]], [[4, 9, 0], [3, 4, 5], [12, 6, 0], [8, 0, 0]]])
    return [{"input_ids": column, "attention_mask": (column > 0).long()} for column in ids]

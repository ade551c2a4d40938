"""What several tests of losses are given."""

from __future__ import annotations

import pytest
import torch

from st_vi.recipes import build_vipolyqwen
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl


@pytest.fixture(scope="module")
def tiny_multimodal(tmp_path_factory):
    torch.manual_seed(0)
    path = save_tiny_qwen2_vl(tmp_path_factory.mktemp("tiny-qwen2-vl"))
    return build_vipolyqwen(path, embedding_dimension=16, min_pixels=28 * 28, max_pixels=8 * 28 * 28).train()


@pytest.fixture
def forwards():
    """`watch(model)` gives a list to which every forward appends the shape of its input_ids."""
    handles = []

    def watch(model):
        shapes = []
        hook = model.register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0]["input_ids"].shape)))
        handles.append(hook)
        return shapes

    yield watch
    for handle in handles:
        handle.remove()

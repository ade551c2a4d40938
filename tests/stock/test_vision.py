"""Qwen2-VL's vision tower in fewer operations: the values and gradients of stock's loop and convolution."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import Qwen2VLConfig, Qwen2VLModel
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel

from st_vi.stock.vision import BY_SIZE, DistinctPictures, PatchProjection, speed_up

# A clip of two moments, and images of three sizes, two of them twice.
GRIDS = torch.tensor([[1, 4, 4], [2, 4, 4], [1, 4, 8], [1, 2, 2], [1, 4, 8]])
KINDS = {"2": Qwen2VisionTransformerPretrainedModel, "2.5": Qwen2_5_VisionTransformerPretrainedModel}


def tower(kind):
    torch.manual_seed(0)
    settings = {"depth": 2, "hidden_size": 32, "num_heads": 2, "out_hidden_size": 16, "intermediate_size": 48}
    if kind == "2":
        settings = {"depth": 2, "embed_dim": 32, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 2}
    elif kind == "2.5":
        settings |= {"window_size": 56, "fullatt_block_indexes": [1]}
    visual = KINDS[kind]._from_config(KINDS[kind].config_class(**settings), attn_implementation="sdpa")
    return visual.double()


def run(visual, pixels):
    """Cells and gradients."""
    visual.zero_grad()
    cells = visual(pixels, grid_thw=GRIDS).pooler_output
    cells.square().sum().backward()
    return cells.detach(), {name: p.grad.clone() for name, p in visual.named_parameters()}


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_are_those_of_stock(kind, monkeypatch):
    visual = tower(kind)
    pixels = torch.randn(int(GRIDS.prod(dim=1).sum()), 3 * 2 * 14 * 14, dtype=torch.float64)
    expected, gradients = run(visual, pixels)
    before, calls = visual.state_dict(), []
    attend = F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda q, *a, **k: calls.append(len(q)) or attend(q, *a, **k)
    )
    monkeypatch.setattr(F, "conv3d", None)
    speed_up(visual)
    cells, ours = run(visual, pixels)
    # Rotations are in fp32.
    torch.testing.assert_close(cells, expected, atol=1e-6, rtol=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(ours[name], gradient, atol=1e-5 * float(gradient.abs().max()), rtol=0, msg=name)
    if kind == "2":
        assert sorted(calls) == [1, 1, 2, 2, 3, 3]  # in each of two layers: one of 4 patches, two of 32, three of 16
    assert visual.state_dict().keys() == before.keys()


def test_nothing_of_it_is_saved(tmp_path):
    config = Qwen2VLConfig(
        vision_config={"depth": 1, "embed_dim": 32, "hidden_size": 16, "num_heads": 2},
        text_config={"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        | {"num_key_value_heads": 1, "intermediate_size": 16},
    )
    model = Qwen2VLModel(config)
    speed_up(model.visual)
    model.save_pretrained(tmp_path)
    assert BY_SIZE not in (tmp_path / "config.json").read_text()
    assert Qwen2VLModel(model.config).visual.config._attn_implementation == BY_SIZE  # which then loops, as stock does
    again = Qwen2VLModel.from_pretrained(tmp_path)
    assert type(again.visual.patch_embed.proj) is nn.Conv3d
    assert torch.equal(again.visual.patch_embed.proj.weight, model.visual.patch_embed.proj.weight)


@pytest.mark.parametrize("when", ["before", "after"])
def test_other_attention_is_left_as_it_is(when):
    visual = tower("2")
    if when == "before":
        visual.set_attn_implementation("eager")
    speed_up(visual)
    if when == "after":
        visual.set_attn_implementation("eager")
    pixels = torch.randn(int(GRIDS.prod(dim=1).sum()), 3 * 2 * 14 * 14, dtype=torch.float64)
    assert visual.config._attn_implementation == "eager" and type(visual.patch_embed.proj) is PatchProjection
    torch.testing.assert_close(visual(pixels, grid_thw=GRIDS).pooler_output, tower("2")(pixels, grid_thw=GRIDS)[1])


def test_all_outputs_of_repeated_images_are_those_of_stock():
    """Also the states before cells are merged, beside what a row of texts says of itself, and with given positions."""
    visual, pixels = tower("2"), torch.randn(16, 3 * 2 * 14 * 14, dtype=torch.float64)
    grids = torch.tensor([[1, 4, 4]]).repeat(3, 1)
    patches = torch.cat([pixels, pixels + 1, pixels])
    expected, calls = visual(patches, grid_thw=grids), []
    DistinctPictures(visual)
    visual.patch_embed.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    for found in (visual(patches, grid_thw=grids), visual(patches, grid_thw=grids, cu_seq_lens_q=torch.tensor([0, 9]))):
        for name in ("last_hidden_state", "pooler_output"):
            torch.testing.assert_close(found[name], expected[name])
    visual(patches, grid_thw=grids, output_hidden_states=False)
    assert calls == [32, 32, 48]

"""The example model is made once, and is a viPolyQwen; what it has learned is measured in its notebook."""

from __future__ import annotations

import torch

from st_vi.data.generated.scenes import draw, scene
from st_vi.modules import AttentionPooling
from st_vi.recipes.examples import vision_model as module


def test_made_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("ST_VI_CACHE", str(tmp_path))
    model = module.example_vision_model(steps=2)
    assert isinstance(model[1], AttentionPooling) and "instr" in model.prompts
    (folder,) = tmp_path.iterdir()
    assert not (folder / "base").exists()

    monkeypatch.setattr(module, "_make", None)  # a second training would fail
    again = module.example_vision_model(steps=2)
    picture = draw(scene("test", 0), size=224)
    first, second = (each.encode([picture, "Một hình tròn."], convert_to_tensor=True).cpu() for each in (model, again))
    torch.testing.assert_close(first, second)
    assert again.preprocess([picture])["image_grid_thw"].tolist() == [[1, 8, 8]]  # 4 × 4 merged patches
    assert first.shape == (2, 96)

"""Models that are made once and kept."""

from __future__ import annotations

from st_vi.recipes.examples import text_models


def test_a_kept_model_is_not_taken_for_one_of_other_weights(tmp_path, monkeypatch):
    made = []

    def make(folder):
        folder.mkdir()
        made.append(folder)

    weights = tmp_path / "model.safetensors"
    monkeypatch.setenv("ST_VI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(text_models, "pretrained", lambda name: str(tmp_path))
    monkeypatch.setattr(text_models, "load", lambda folder: folder)
    found = []
    for content in (b"some", b"some", b"others"):
        weights.write_bytes(content)
        found.append(text_models.kept("text", make))
    assert found[0] == found[1] != found[2] and len(made) == 2

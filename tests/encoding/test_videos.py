"""Videos in batches by tokens, and refused by name where they are not taken."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from st_vi.encoding import encode_by_tokens
from st_vi.encoding.rows import BadValue, InputColumns
from st_vi.recipes import build_vipolyqwen
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl

FRAMES = [Image.new("RGB", (56, 56), colour) for colour in ("red", "lime", "blue", "white")]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_vipolyqwen(save_tiny_qwen2_vl(tmp_path_factory.mktemp("tiny")), embedding_dimension=16)


def test_batches_by_tokens(model, tmp_path):
    path = tmp_path / "phim.png"
    FRAMES[0].save(path, save_all=True, append_images=FRAMES[1:])
    inputs = [{"video": FRAMES}, "Nắng.", {"video": path, "text": "Gì?"}, {"video": FRAMES[::-1], "image": FRAMES[0]}]
    by_tokens = encode_by_tokens(model, inputs, max_tokens=40)
    np.testing.assert_allclose(by_tokens, [model.encode(item) for item in inputs], atol=1e-5)
    with pytest.raises(ValueError, match=r"input 1, .*at least 2 frames, got 1"):
        encode_by_tokens(model, [{"video": FRAMES}, {"video": FRAMES[:1]}])
    with pytest.raises(ValueError, match=r"input 0, .*there is no video"):
        encode_by_tokens(model, [tmp_path / "phim.mp4"])


def test_a_corpus_refuses_videos(model):
    for column in ("video", "positive_video"):
        with pytest.raises(ValueError, match=f"column '{column}' holds videos, which are not encoded from a corpus"):
            InputColumns.of([{column: "phim.gif"}], column, None, False, None)
    columns = InputColumns.of([{"text": "a"}], "text", None, False, None)
    with pytest.raises(BadValue, match="column 'text': videos are not encoded from a corpus"):
        columns.input({"text": {"video": FRAMES}}, model.modalities)

"""The demo of images: what it shows, and that its figures are those of the vectors."""

from __future__ import annotations

import numpy as np
import pytest

from st_vi import build_vipolyqwen
from st_vi.recipes.examples import demo_pictures
from st_vi.recipes.examples.demo_pictures import COUNT, run_picture_demo
from st_vi.text import strip_diacritics
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    base = save_tiny_qwen2_vl(tmp_path_factory.mktemp("tiny") / "base")
    return build_vipolyqwen(base, embedding_dimension=16, min_pixels=28 * 28, max_pixels=16 * 28 * 28).cpu()


@pytest.mark.slow
@pytest.mark.parametrize("fonts", [True, False])
def test_figures_are_those_of_the_vectors(model, tmp_path, monkeypatch, fonts):
    if not fonts:
        monkeypatch.setattr(demo_pictures, "FONTS", ())
    result = run_picture_demo(model, tmp_path / "pictures")
    assert len(result.pictures) == COUNT == len(list((tmp_path / "pictures").glob("*.png")))
    seen = model.encode([one.picture for one in result.pictures])
    for place, change in enumerate((str, lambda text: strip_diacritics(text).lower())):
        cosine = model.encode([change(one.text) for one in result.pictures]) @ seen.T
        right = cosine.argmax(axis=1) == np.arange(COUNT)
        for kind, found in result.found.items():
            own = [one.kind == kind for one in result.pictures]
            assert found[place] == pytest.approx(right[own].mean(), abs=0.06)
    assert len(result.answers) == 2 * len(result.found)
    own = {text: one.text for one in result.pictures for text in (one.text, strip_diacritics(one.text).lower())}
    for answer in result.answers:
        assert answer.right == (answer.found == own[answer.query])
    assert not all(answer.right for answer in result.answers)  # by a model that was not trained
    assert result.answer in [text for text, _ in result.options]
    scores = [score for _, score in result.options]
    assert scores == sorted(scores, reverse=True)

"""Every control changes what is drawn, and what is drawn is what the model does."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from st_vi.modules import AttentionPooling

pytest.importorskip("ipywidgets")
pytest.importorskip("anywidget")

from st_vi.viz.widgets import pool_explorer
from st_vi.viz.widgets.pool_explorer import TEMPERATURES, PoolExplorer

TEXT = "Trời mưa to ở Hà Nội."
PROMPT = "cặp câu: "


@pytest.fixture(scope="module")
def model(tiny_base):
    torch.manual_seed(0)
    pooling = AttentionPooling(32)
    pooling.attention_context_vector.data *= 20
    return SentenceTransformer(
        modules=[Transformer(str(tiny_base)), pooling, Normalize()], prompts={"pair": PROMPT}, device="cpu"
    )


@pytest.fixture
def explorer(model):
    return PoolExplorer(model, text=TEXT)


def labels(explorer):
    return list(explorer.bars.layout.xaxis.labelalias.values())


def weights(explorer):
    return np.array(explorer.bars.data[0].y)


def test_it_begins_with_the_model(explorer, model):
    np.testing.assert_allclose(explorer.view.embedding, model.encode(TEXT, prompt_name="pair"), atol=1e-5)
    assert labels(explorer) == ["&lt;s&gt;", *PROMPT.split(), *TEXT.split(), "&lt;/s&gt;"]
    assert weights(explorer).sum() == pytest.approx(1)
    assert explorer.prefix_in_pool.value and not explorer.notice.value
    assert [label for label, _ in explorer.delete.options] == ["nothing", *TEXT.split()]
    described = {"text", "prefix", "prefix in pool", "strip diacritics", "temperature", "unit", "delete"}
    assert described <= {getattr(control, "description", "") for control in controls(explorer)}


def controls(box):
    for child in box.children if hasattr(box, "children") else ():
        yield child
        yield from controls(child)


def test_temperature(explorer):
    before = weights(explorer)
    explorer.temperature.value = 0.1
    assert weights(explorer).max() > before.max()
    explorer.temperature.value = 10
    assert weights(explorer).max() < before.max()
    explorer.temperature.value = 1
    np.testing.assert_allclose(weights(explorer), before, atol=1e-6)


def test_prefix(explorer, model):
    explorer.prefix_in_pool.value = False
    assert weights(explorer)[1:3].sum() == 0
    explorer.prefix.value = ""
    assert labels(explorer)[1] == "Trời"
    np.testing.assert_allclose(explorer.view.embedding, model.encode(TEXT), atol=1e-5)


def test_a_model_without_its_prefix_in_the_pool(tiny_base):
    modules = [Transformer(str(tiny_base)), AttentionPooling(32, include_prompt=False)]
    model = SentenceTransformer(modules=modules, prompts={"pair": PROMPT}, device="cpu")
    explorer = PoolExplorer(model, text=TEXT)
    assert not explorer.prefix_in_pool.value
    np.testing.assert_allclose(explorer.view.embedding, model.encode(TEXT, prompt_name="pair"), atol=1e-5)


def test_text(explorer, model):
    explorer.text.value = "Con mèo <i>đen</i> ngủ."
    assert labels(explorer)[3:6] == ["Con", "mèo", "&lt;i&gt;đen&lt;/i&gt;"]
    assert "<i>" not in explorer.tokens.value + explorer.table.value + explorer.summary.value
    explorer.plain.value = True
    assert labels(explorer)[4] == "meo"
    expected = model.encode("Con meo <i>den</i> ngu.", prompt_name="pair")
    np.testing.assert_allclose(explorer.view.embedding, expected, atol=1e-5)


def test_units(explorer):
    by_syllable = weights(explorer)
    explorer.by.value = "token"
    assert len(weights(explorer)) > len(by_syllable)
    assert weights(explorer).sum() == pytest.approx(by_syllable.sum())


def test_deletion(explorer, model):
    whole = model.encode(TEXT, prompt_name="pair")
    words = TEXT.split()
    drifts = [
        1 - float(whole @ model.encode(" ".join(words[:i] + words[i + 1 :]), prompt_name="pair")) for i in range(6)
    ]
    explorer.delete.value = 1
    text = explorer.summary.value
    assert "line-through" in explorer.tokens.value and "“mưa”" in text and "“Trời to ở Hà Nội.”" in text
    drift, others = map(float, re.search(r"drifts by ([\d.]+); without a random other unit: ([\d.]+)", text).groups())
    assert drift == pytest.approx(drifts[1], abs=1e-3)
    assert others == pytest.approx(np.mean(drifts[:1] + drifts[2:]), abs=1e-3)
    explorer.by.value = "token"
    assert explorer.delete.label == "nothing" and "line-through" not in explorer.tokens.value


def test_a_click_on_a_bar(explorer):
    points = type("Points", (), {"point_inds": [4]})()
    explorer._clicked(None, points, None)
    assert explorer.delete.label == "mưa"
    points.point_inds = [0]  # a special token: nothing to delete
    explorer._clicked(None, points, None)
    assert explorer.delete.label == "mưa"


def test_texts_that_are_too_short_or_too_long(explorer):
    explorer.delete.value = 1
    explorer.text.value = "  "
    assert "empty" in explorer.notice.value and "line-through" not in explorer.tokens.value
    explorer.text.value = "Trời mưa to " * 40
    assert "limit of 64 tokens" in explorer.notice.value
    explorer.temperature.value = 0.5
    assert "limit of 64 tokens" in explorer.notice.value  # still true
    explorer.text.value = "ạ"
    assert not explorer.notice.value and len(explorer.own) == 1
    explorer.delete.value = 0
    assert "there is none" in explorer.summary.value


def test_of_a_long_text_the_beginning_is_deleted(explorer, model, monkeypatch):
    monkeypatch.setattr(pool_explorer, "MOST_DELETED", 4)
    explorer.text.value = TEXT
    explorer.text.value = TEXT.replace("to", "lớn")
    assert [label for label, _ in explorer.delete.options] == ["nothing", "Trời", "mưa", "lớn", "ở"]
    assert len(labels(explorer)) == 2 + 2 + 6 and explorer.table.value.count("<tr>") == 1 + 4
    assert "over the first 4 units" in explorer.summary.value
    explorer._clicked(None, type("Points", (), {"point_inds": [8]})(), None)  # "Nội." is not among them
    assert explorer.delete.label == "nothing"
    monkeypatch.undo()
    explorer.text.value = TEXT
    assert "over the 6 units" in explorer.summary.value


def test_twin_without_a_kernel(explorer):
    explorer.prefix_in_pool.value = False
    figure = explorer._static()
    assert [step.label for step in figure.layout.sliders[0].steps] == [f"{value:g}" for value in TEMPERATURES]
    np.testing.assert_allclose(figure.data[0].y, weights(explorer), atol=1e-6)
    json.dumps(explorer._repr_mimebundle_()["application/vnd.plotly.v1+json"])


def test_other_models(tiny_base):
    mean = SentenceTransformer(modules=[Transformer(str(tiny_base)), Pooling(32, "mean")], device="cpu")
    with pytest.raises(ValueError, match="AttentionPooling"):
        PoolExplorer(mean)
    with pytest.raises(ValueError, match="model must be a SentenceTransformer"):
        PoolExplorer("vi-mini")

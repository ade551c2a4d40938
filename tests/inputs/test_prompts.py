"""The prompt is the one that stock takes."""

from __future__ import annotations

import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import BoW

from st_vi.inputs.prompts import prompt_of


@pytest.mark.parametrize("default", [None, "query"])
@pytest.mark.parametrize("prompt", [None, "", "Câu: "])
@pytest.mark.parametrize("name", [None, "query", "empty"])
def test_as_stock(default, prompt, name):
    model = SentenceTransformer(
        modules=[BoW(["mưa"])], prompts={"query": "Hỏi: ", "empty": ""}, default_prompt_name=default
    )
    assert prompt_of(model, prompt, name) == model._resolve_prompt(prompt, name)


def test_a_name_that_is_ignored_is_told(caplog):
    model = SentenceTransformer(modules=[BoW(["mưa"])], prompts={"query": "Hỏi: "})
    assert prompt_of(model, "Câu: ", "query") == "Câu: "
    assert "'query' is ignored" in caplog.text


def test_an_unknown_name():
    model = SentenceTransformer(modules=[BoW(["mưa"])], prompts={"query": "Hỏi: "})
    with pytest.raises(ValueError, match=r"no prompt 'hỏi'; the model's prompts are \['document', 'query'\]"):
        prompt_of(model, None, "hỏi")


@pytest.mark.parametrize("prompt", [3, ["Câu: ", "Hỏi: "], b"x"])
def test_what_is_no_text(prompt):
    model = SentenceTransformer(modules=[BoW(["mưa"])])
    with pytest.raises(TypeError, match="the prompt is not a text but"):
        prompt_of(model, prompt)

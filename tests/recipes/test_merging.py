"""Merged weights against a plain loop over state dicts, a mean that is known, and pairs that cannot be merged."""

from __future__ import annotations

import copy
from math import nan

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.evaluation import BaseEvaluator
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator
from sentence_transformers.sentence_transformer.modules import BoW, Normalize, Pooling

from st_vi import MLPHead, load
from st_vi.modules import TaskRouter
from st_vi.recipes import build_vipolyqwen, merge_models, search_merge
from tests.conftest import SENTENCES
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl


def shaken(model, seed, dtype=torch.float32):
    """As if trained: every weight moved."""
    moved, random = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    for parameter in moved.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=random)
    return moved.to(dtype)


def linear(value, **settings):
    head = MLPHead(2, 2, activation="identity")
    head.layers[0].weight.data.fill_(value)
    head.layers[0].bias.data.fill_(-value)
    return SentenceTransformer(modules=[BoW(["xin", "chào"]), head], device="cpu", **settings)


def states(*models):
    return [{name: value.double() for name, value in model.state_dict().items()} for model in models]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("weights", "with_base"), [((0.2, 0.8), False), (None, False), ((0.7, 0.9), True)])
def test_merges_are_those_of_a_plain_loop(tiny_model, weights, with_base, dtype):
    base = copy.deepcopy(tiny_model).to(dtype)
    first, second = shaken(tiny_model, 1, dtype), shaken(tiny_model, 2, dtype)
    before = states(first, second, base)
    merged = merge_models([first, second], weights, base=base if with_base else None)
    one, two = weights or (0.5, 0.5)
    for name, value in merged.state_dict().items():
        a, b, c = (state[name] for state in before)
        expected = c + one * (a - c) + two * (b - c) if with_base else one * a + two * b
        if not value.is_floating_point():
            expected = a
        assert value.dtype == first.state_dict()[name].dtype
        torch.testing.assert_close(value, expected.to(value.dtype), rtol=1e-6 if dtype == torch.float32 else 0, atol=0)
    for state, old in zip(states(first, second, base), before, strict=True):
        assert all(torch.equal(state[name], old[name]) for name in old), "the sources are left as they are"
    assert not merged.training


@pytest.mark.parametrize("of_text", [False, True])
def test_a_trained_model_merges_with_its_base(tiny_model, tmp_path, of_text):
    """The trainer of transformers changes the configuration of what it trains."""
    base = build_vipolyqwen(save_tiny_qwen2_vl(tmp_path)) if of_text else tiny_model
    trained = shaken(base, 1)
    whole = trained[0].model.config
    config = whole.get_text_config()
    config.eos_token_id, whole.use_cache = (7 if config.eos_token_id != 7 else 8), False
    before = whole.to_dict(), base[0].model.config.to_dict()
    merge_models([trained, base])
    assert (whole.to_dict(), base[0].model.config.to_dict()) == before
    config.hidden_act = "relu"
    with pytest.raises(ValueError, match="has a different configuration in model 1"):
        merge_models([trained, base])


def test_merges_are_those_of_stock(tiny_model):
    pytest.importorskip("mergekit", reason='pip install "sentence-transformers[merge]"')
    models, base = [shaken(tiny_model, 1), shaken(tiny_model, 2)], tiny_model
    stock = SentenceTransformer.merge(models, parameters={"weight": [0.2, 0.8]})
    arithmetic = SentenceTransformer.merge(
        models, method="task_arithmetic", base_model=base, parameters={"weight": [0.7, 0.9], "normalize": False}
    )
    for theirs, ours in (
        (stock, merge_models(models, [0.2, 0.8])),
        (arithmetic, merge_models(models, [0.7, 0.9], base=base)),
    ):
        for name, value in theirs.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_vectors_of_a_known_mean():
    """Of linear models, vectors are merged as the weights are."""
    first, second = linear(1.0), linear(3.0)
    vectors = [model.encode(["xin", "xin chào"]) for model in (first, second)]
    np.testing.assert_allclose(vectors[1], [[0, 0], [3, 3]])
    merged = merge_models([first, second], [0.25, 0.75])
    np.testing.assert_allclose(merged.encode(["xin", "xin chào"]), 0.25 * vectors[0] + 0.75 * vectors[1])
    away = merge_models([second], [-1.0], base=first)  # the base less what training added
    np.testing.assert_allclose(away.encode(["xin", "xin chào"]), 2 * vectors[0] - vectors[1])


def test_a_merge_is_saved_and_loaded_and_loads_what_it_merges(tiny_model, tmp_path):
    tiny_model.prompts["query"] = "hỏi: "
    for number in (1, 2):
        shaken(tiny_model, number).save_pretrained(str(tmp_path / f"{number}"))
    merged = merge_models([tmp_path / "1", str(tmp_path / "2")])
    merged.save_pretrained(str(tmp_path / "merged"))
    loaded = load(tmp_path / "merged", device="cpu")
    assert loaded.prompts == merged.prompts == tiny_model.prompts
    vectors = merged.encode(SENTENCES, prompt_name="query")
    np.testing.assert_allclose(loaded.encode(SENTENCES, prompt_name="query"), vectors, atol=1e-6)
    assert "st_vi.load(" in (tmp_path / "merged" / "README.md").read_text(encoding="utf-8")


def other(tiny_base, pooling="cls", head=True, **settings):
    modules = [Transformer(str(tiny_base)), Pooling(32, pooling), *([MLPHead(32, 32)] if head else []), Normalize()]
    return SentenceTransformer(modules=modules, device="cpu", **settings)


def with_words(model):
    model.tokenizer.add_tokens(["ngập"])
    return model


def with_setting(model, **settings):
    for name, value in settings.items():
        setattr(model, name, value)
    return model


def with_rank(model):
    peft = pytest.importorskip("peft", reason='needs pip install "st-vi[lora]"')
    model[0].model.add_adapter(peft.LoraConfig(r=2, target_modules=["query"]))
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda base: other(base, pooling="mean"), "Module '1' has a different configuration in model 1"),
        (lambda base: other(base, head=False), "Model 1 has a different module structure"),
        (lambda base: with_words(other(base)), "Tokenizer vocabulary or special tokens differ in model 1"),
        (
            lambda base: other(base, prompts={"ocr": "<ocr> "}),
            r"the prompts \['ocr'\] of model 1 are not those of model 0",
        ),
        (
            lambda base: with_setting(other(base), max_seq_length=16),
            r"max_seq_length is \d+ in model 0 and 16 in model 1: set it in one of them",
        ),
        (lambda base: other(base, similarity_fn_name="dot"), "similarity_fn_name is 'cosine' in model 0 and 'dot' in"),
        (lambda base: other(base, truncate_dim=8), "truncate_dim is None in model 0 and 8 in model 1"),
        (lambda base: with_rank(other(base)), r"model 1 has a LoRA adapter: call st_vi.recipes.merge_lora\(model\)"),
        (lambda base: other(base).append(TaskRouter(["a", "b"], 32)), "model 1 has a TaskRouter"),
    ],
)
def test_models_that_differ(tiny_base, tiny_model, make, message):
    with pytest.raises(ValueError, match=message) as error:
        merge_models([tiny_model, make(tiny_base)])
    assert "\n" not in str(error.value)


def test_whole_numbers_that_differ():
    first, second = linear(1.0), linear(1.0)
    for number, model in enumerate((first, second)):
        model[1].register_buffer("count", torch.tensor(number))
    with pytest.raises(ValueError, match=r"1\.count, which holds whole numbers, differs between the models 0 and 1"):
        merge_models([first, second])


@pytest.mark.parametrize(
    ("count", "weights", "message"),
    [
        (1, None, "needs two models, or one and a base"),
        (2, [0.5], "weights must be 2 finite numbers, one for each model, got \\[0.5\\]"),
        (2, [nan, 1.0], "weights must be 2 finite numbers"),
        (2, [1.0, 1.0], "without a base, weights must have the sum 1, got \\[1.0, 1.0\\]"),
    ],
)
def test_weights_that_make_no_sense(count, weights, message):
    with pytest.raises(ValueError, match=message):
        merge_models([linear(1.0) for _ in range(count)], weights)


class Distance(BaseEvaluator):
    """How far the weight of the head is from `wanted`; NaN below 1."""

    def __init__(self, wanted, greater_is_better=False, as_dict=True):
        super().__init__()
        self.primary_metric, self.greater_is_better = "distance", greater_is_better
        self.wanted, self.as_dict = wanted, as_dict

    def __call__(self, model, output_path=None, epoch=-1, steps=-1):
        weight = model[1].layers[0].weight[0, 0].item()
        score = abs(weight - self.wanted) * (-1 if self.greater_is_better else 1) if weight >= 1 else nan
        return {"distance": score, "other": 0.0} if self.as_dict else score


@pytest.mark.parametrize(("greater", "as_dict"), [(False, True), (True, False)])
def test_search_finds_the_weights(greater, as_dict):
    found = search_merge(
        [linear(0.0), linear(4.0)], Distance(1.1, greater, as_dict), show_progress_bar=False
    )  # with NaN at the first
    assert [weights for weights, _ in found.tried] == [(0.0, 1.0), (0.25, 0.75), (0.5, 0.5), (0.75, 0.25), (1.0, 0.0)]
    assert found.weights == (0.75, 0.25) and found.metric == ("distance" if as_dict else "score")
    assert abs(found.score) == pytest.approx(0.1, abs=1e-6) and found.model[1].layers[0].weight[0, 0].item() == 1.0
    assert str(found).splitlines()[2:] == [
        f"| {one:g} | {1 - one:g} | {'nan' if one == 1 else f'{-score if greater else score:.4f}'} |"
        for one, score in zip((0, 0.25, 0.5, 0.75, 1), (2.9, 1.9, 0.9, 0.1, nan), strict=True)
    ]


def test_search_with_a_base_and_with_candidates():
    models, base = [linear(2.0), linear(3.0)], linear(1.0)
    found = search_merge(models, Distance(2.5), base=base, steps=2, show_progress_bar=False)
    assert {weights for weights, _ in found.tried} == {(0, 0), (0, 0.5), (0, 1), (0.5, 0), (0.5, 0.5), (1, 0)}
    assert found.weights == (0.5, 0.5)  # 1 + 0.5 · 1 + 0.5 · 2
    found = search_merge(models, Distance(4.0), base=base, candidates=[(1, 1), (0, 1)], show_progress_bar=False)
    assert found.weights == (1, 1) and found.score == 0.0
    with pytest.raises(ValueError, match="distance is not a number for any of the 1 weights"):
        search_merge(models, Distance(4.0), base=base, candidates=[(-1, 0)], show_progress_bar=False)
    with pytest.raises(ValueError, match="steps must be a whole number of at least 1, got 0"):
        search_merge(models, Distance(4.0), steps=0)
    with pytest.raises(ValueError, match="candidates is empty: leave it out for a grid"):
        search_merge(models, Distance(4.0), candidates=[])


def test_the_card_has_the_figures_of_the_best(tiny_model):
    models = [shaken(tiny_model, 1), shaken(tiny_model, 2)]
    evaluator = EmbeddingSimilarityEvaluator(SENTENCES[:4], SENTENCES[4:], [0.1, 0.9, 0.4, 0.6])
    found = search_merge(models, evaluator, steps=2, show_progress_bar=False)
    assert found.metric == evaluator.primary_metric and len(found.tried) == 3
    assert found.score == max(score for _, score in found.tried)
    (figures,) = found.model.model_card_data.eval_results_dict.values()
    assert figures[found.metric] == found.score == evaluator(merge_models(models, found.weights))[found.metric]


def test_models_that_are_read_once(tiny_model):
    merged = merge_models(model for model in (tiny_model, tiny_model))
    np.testing.assert_allclose(merged.encode("Trời mưa."), tiny_model.encode("Trời mưa."), atol=1e-6)

"""`NextTokenLoss` against a loop over rows and tokens, its cached twin, and both in the trainer beside `DLELoss`."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset, DatasetDict, Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss
from sentence_transformers.sentence_transformer.modules import Pooling
from torch.nn.parallel import DistributedDataParallel

from st_vi import CachedDLELoss, DLELoss
from st_vi.losses import CachedNextTokenLoss, NextTokenLoss
from st_vi.losses.next_token import joined
from st_vi.recipes import train_vipolyqwen
from tests.helpers.columns import TALL, WIDE
from tests.helpers.one_epoch import SETTINGS
from tests.helpers.processes import gloo, on_two

ANCHORS = [WIDE, {"image": TALL, "text": "<instr> Tả bức ảnh."}, "Trời hôm nay thế nào?", TALL]
CAPTIONS = ["Một con mèo nằm trên ghế.", "Hai con chó.", "Trời mưa to nên đường phố ngập nước.", "Đen."]


def columns(model, side="right"):
    model[0].tokenizer.padding_side = side
    found = [model.preprocess(column) for column in (ANCHORS, CAPTIONS)]
    model[0].tokenizer.padding_side = "right"
    return found


def gradients(model):
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def naive(model):
    """−log p of one token after the other; each beginning is read on its own, so nothing can look ahead."""
    matrix, losses = model[0].model.get_input_embeddings().weight, []
    for anchor, caption in zip(ANCHORS, CAPTIONS, strict=True):
        before, tokens = model.preprocess([anchor]), model.preprocess([caption])["input_ids"][0]
        for number, token in enumerate(tokens):
            features = dict(before)
            features["input_ids"] = torch.cat([before["input_ids"], tokens[None, :number]], dim=1)
            features["attention_mask"] = torch.ones_like(features["input_ids"])
            kinds = torch.zeros(1, number, dtype=before["mm_token_type_ids"].dtype)
            features["mm_token_type_ids"] = torch.cat([before["mm_token_type_ids"], kinds], dim=1)
            last = model(features)["token_embeddings"][0, -1]
            powers = (matrix @ last).exp()
            losses.append(-(powers[token] / powers.sum()).log())
    return sum(losses) / len(losses)


@pytest.fixture
def model(tiny_multimodal):
    """In float64, as softmax and sums differ in the last digits."""
    yield tiny_multimodal.double()
    tiny_multimodal.float()


def test_equals_the_naive_loop(model):
    """In value and gradient, on either padding side, and in chunks of the logits."""
    expected = naive(model)
    (0.7 * expected).backward()
    wanted = gradients(model)
    for side, limit in (("right", 2**28), ("left", 1), ("right", 3 * 8 * 400)):
        loss = NextTokenLoss(model, weight=0.7, allow_untied=True, max_matrix_bytes=limit)(columns(model, side))
        torch.testing.assert_close(loss, 0.7 * expected)
        loss.backward()
        found = gradients(model)
        # Pooling and head have no part in it.
        assert found.keys() - wanted.keys() == {n for n, _ in model.named_parameters() if not n.startswith("0.")}
        for name, value in found.items():
            theirs = wanted.get(name, torch.zeros_like(value))
            torch.testing.assert_close(value, theirs, atol=1e-7, rtol=1e-5, msg=lambda m, name=name: f"{name}: {m}")


def test_attention_is_causal(model):
    """What comes later changes nothing before it: neither the next caption's tokens nor padding."""
    anchor, caption = columns(model)
    for number in range(len(ANCHORS)):
        both = joined(anchor, caption, pad=0)
        states = model(dict(both))["token_embeddings"][number]
        length = int(both["attention_mask"][number].sum())
        both["input_ids"][number, length - 1] += 1
        changed = model(dict(both))["token_embeddings"][number]
        torch.testing.assert_close(states[: length - 1], changed[: length - 1], atol=1e-12, rtol=1e-12)
        assert not torch.equal(states[length - 1], changed[length - 1])


def test_one_sequence_is_that_of_an_image_with_its_text(model):
    """The tokens are those of {"image", "text"}, of which the model makes the same states."""
    one = [model.preprocess([part]) for part in (WIDE, CAPTIONS[0])]
    both = joined(*one, pad=0)
    targets = both.pop("targets")
    expected = model.preprocess([{"image": WIDE, "text": CAPTIONS[0]}])
    for key in ("input_ids", "attention_mask", "mm_token_type_ids", "pixel_values", "image_grid_thw"):
        assert torch.equal(both[key], expected[key]), key
    assert torch.equal(targets[targets >= 0], one[1]["input_ids"][0])


@pytest.mark.slow
@pytest.mark.parametrize(
    "mini", [{"mini_batch_size": 1}, {"mini_batch_size": 3}, {"mini_batch_num_tokens": 30}], ids=str
)
def test_cached_equals_uncached(model, mini):
    """With a scaled and accumulated backward pass."""
    results = []
    for loss in (NextTokenLoss(model, allow_untied=True), CachedNextTokenLoss(model, allow_untied=True, **mini)):
        for _ in range(2):
            value = loss(columns(model))
            (value / 2).backward()
        results.append((value.detach(), gradients(model)))
    assert results[0][1].keys() == results[1][1].keys()
    torch.testing.assert_close(results[1], results[0], atol=1e-9, rtol=1e-7)
    with torch.no_grad():
        value = loss(columns(model))
    torch.testing.assert_close(value, results[0][0])
    assert not value.requires_grad


def test_dropout_is_the_same_in_both_passes(tiny_multimodal):
    for layer in tiny_multimodal[0].model.language_model.layers:
        layer.self_attn.attention_dropout = 0.3
    try:
        results = []
        for kind, more in ((NextTokenLoss, {}), (CachedNextTokenLoss, {"mini_batch_size": 4})):
            torch.manual_seed(0)
            value = kind(tiny_multimodal, allow_untied=True, **more)(columns(tiny_multimodal))
            value.backward()
            results.append((value.detach(), gradients(tiny_multimodal)))
        torch.testing.assert_close(results[1], results[0], atol=1e-5, rtol=1e-4)
    finally:
        for layer in tiny_multimodal[0].model.language_model.layers:
            layer.self_attn.attention_dropout = 0.0


def test_autocast(tiny_multimodal):
    """bf16 in the model, fp32 in the softmax."""
    expected = NextTokenLoss(tiny_multimodal, allow_untied=True)(columns(tiny_multimodal))
    for kind in (NextTokenLoss, CachedNextTokenLoss):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = kind(tiny_multimodal, allow_untied=True)(columns(tiny_multimodal))
        value.backward()
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected, atol=0.1, rtol=0.05)
        assert all(gradient.isfinite().all() for gradient in gradients(tiny_multimodal).values())


def test_nothing_to_predict(tiny_multimodal):
    anchor, caption = columns(tiny_multimodal)
    caption["attention_mask"] = torch.zeros_like(caption["attention_mask"])
    loss = NextTokenLoss(tiny_multimodal, allow_untied=True)([anchor, caption])
    loss.backward()
    assert loss == 0 and not any(gradient.any() for gradient in gradients(tiny_multimodal).values())


def run_rank(rank, folder):
    with gloo(rank, folder):
        model = SentenceTransformer(f"{folder}/model", trust_remote_code=True, device="cpu").double()
        found = []
        for kind, more in ((NextTokenLoss, {}), (CachedNextTokenLoss, {"mini_batch_size": 1})):
            loss = kind(model, allow_untied=True, **more)
            loss.model = DistributedDataParallel(model, find_unused_parameters=True)  # as the trainer does
            some = slice(2 * rank, 2 * rank + 2)
            value = loss([model.preprocess(column[some]) for column in (ANCHORS, CAPTIONS)])
            value.backward()
            found.append((value.detach(), gradients(model)))
        torch.save(found, f"{folder}/rank{rank}")


@pytest.mark.slow
def test_two_processes_have_the_mean_gradient(model, tmp_path):
    """In DDP, cached and not. The second process has a text as an anchor."""
    model.save(str(tmp_path / "model"))
    on_two(run_rank, str(tmp_path))
    losses = []
    for some in (slice(2), slice(2, 4)):
        loss = NextTokenLoss(model, allow_untied=True)([model.preprocess(c[some]) for c in (ANCHORS, CAPTIONS)])
        (loss / 2).backward()
        losses.append(loss.detach())
    wanted = gradients(model)
    for rank in range(2):
        for value, found in torch.load(tmp_path / f"rank{rank}"):
            torch.testing.assert_close(value, losses[rank])
            assert found.keys() == wanted.keys()
            for name, gradient in wanted.items():
                torch.testing.assert_close(found[name], gradient, atol=1e-7, rtol=1e-5)


def rows(captions):
    pictures = [{"anchor": "", "anchor_image": picture, "positive": text} for picture, text in captions]
    return Dataset.from_list([row | {"task": "instr"} for row in pictures]).cast_column("anchor_image", Image())


@pytest.mark.slow
def test_in_the_trainer_beside_a_contrastive_loss(tiny_multimodal, tmp_path):
    """Both kinds of captions in each step; cached or not, the same weights, and captions get likelier."""
    short = rows([(WIDE, "Một con mèo."), (TALL, "Hai con chó."), (WIDE, "Con mèo."), (TALL, "Chó.")])
    long = rows([(WIDE, CAPTIONS[0]), (TALL, CAPTIONS[2])] * 2)
    start = {name: value.clone() for name, value in tiny_multimodal.state_dict().items()}
    arguments = SETTINGS | {"max_steps": 4, "gradient_accumulation_steps": 2, "save_strategy": "no", "warmup_steps": 0}
    arguments |= {"multi_dataset_batch_sampler": "round_robin", "learning_rate": 1e-3, "disable_tqdm": True}
    results = []
    for contrastive, next_token, mini in (
        (DLELoss, NextTokenLoss, {}),
        (CachedDLELoss, CachedNextTokenLoss, {"mini_batch_size": 1}),
    ):
        tiny_multimodal.load_state_dict(start)
        predict = next_token(tiny_multimodal, allow_untied=True, **mini)
        features = [tiny_multimodal.preprocess(column) for column in ([WIDE, TALL], [CAPTIONS[0], CAPTIONS[2]])]
        before = float(predict(features).detach())
        losses = {"short": contrastive(tiny_multimodal, **mini), "long": predict}
        train_vipolyqwen(
            tiny_multimodal,
            DatasetDict(short=short, long=long),
            tmp_path / next_token.__name__,
            loss=losses,
            **arguments,
        )
        assert float(predict(features).detach()) < before - 0.3
        results.append({name: value.clone() for name, value in tiny_multimodal.state_dict().items()})
    tiny_multimodal.load_state_dict(start)
    for name, value in results[0].items():
        torch.testing.assert_close(
            results[1][name], value, atol=1e-4, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}"
        )


def test_what_does_not_fit_is_said(tiny_multimodal, tiny_base):
    with pytest.raises(ValueError, match="the output matrix of this base model is not its input embedding"):
        NextTokenLoss(tiny_multimodal)
    tiny_multimodal[0].model.config.tie_word_embeddings = True
    assert NextTokenLoss(tiny_multimodal).get_config_dict()["allow_untied"] is False
    tiny_multimodal[0].model.config.tie_word_embeddings = False
    text = SentenceTransformer(modules=[Transformer(str(tiny_base)), Pooling(32, "mean")], device="cpu")
    with pytest.raises(ValueError, match=r"a model whose first module is a Qwen2VLTransformer\(template='plain'\)"):
        NextTokenLoss(text)
    with pytest.raises(ValueError, match="weight must be finite, got nan"):
        NextTokenLoss(tiny_multimodal, weight=float("nan"))
    with pytest.raises(ValueError, match="max_matrix_bytes must be a whole number of at least 1, got 0"):
        NextTokenLoss(tiny_multimodal, max_matrix_bytes=0)
    with pytest.raises(ValueError, match="mini_batch_size must be a whole number of at least 1, got 0"):
        CachedNextTokenLoss(tiny_multimodal, allow_untied=True, mini_batch_size=0)
    loss = NextTokenLoss(tiny_multimodal, allow_untied=True)
    anchor, caption = columns(tiny_multimodal)
    with pytest.raises(ValueError, match=r"reads an anchor and a positive, got 3 column\(s\)"):
        loss([anchor, caption, caption])
    with pytest.raises(ValueError, match="a positive of this batch has an image"):
        loss([anchor, anchor])
    with pytest.raises(ValueError, match="needs padded columns"):
        loss([anchor, {"input_ids": caption["input_ids"]}])
    wrapped = MatryoshkaLoss(tiny_multimodal, CachedNextTokenLoss(tiny_multimodal, allow_untied=True), [16, 2])
    with pytest.raises(ValueError, match="no vectors that MatryoshkaLoss could cut"):
        wrapped([anchor, caption], None)
    assert repr(loss) == "NextTokenLoss(weight=1.0, allow_untied=True, max_matrix_bytes=268435456)"

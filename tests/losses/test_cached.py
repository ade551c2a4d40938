"""The cached losses against the uncached ones: values and the gradients of every parameter, whatever the mini-batch."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
import torch.distributed as dist
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.gradcache import RandContext
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding
from torch.nn.parallel import DistributedDataParallel

from st_vi import CachedDLELoss, CachedSupConNLILoss, DLELoss, SupConNLILoss, train_viclsr, train_vipolyqwen
from st_vi.losses import DLEMonitor
from st_vi.recipes import build_vipolyqwen
from st_vi.terms import PairBatch
from tests.conftest import SENTENCES, tiny_tokenizer
from tests.helpers.columns import BY_RANK, PICTURES, TEXTS, S, Summed, assert_same, columns_of
from tests.helpers.one_epoch import SETTINGS
from tests.helpers.processes import gloo, on_two
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl

NAN = float("nan")
# Two tasks of two rows or more with terms that order rows or take the hardest negative, one of a single row.
LABELS = torch.tensor([[0, 0.1], [0, 0.8], [1, NAN], [4, NAN], [4, NAN]])
MINI_BATCHES = [
    {"mini_batch_size": 1},
    {"mini_batch_size": 3},
    {"mini_batch_size": 100},
    {"mini_batch_num_tokens": 20},
]
KINDS = {"supcon": (SupConNLILoss, CachedSupConNLILoss), "dle": (DLELoss, CachedDLELoss)}


def data(kind, texts=TEXTS):
    return (texts, None) if kind == "supcon" else (texts[:2], LABELS)


def total(loss):
    return torch.stack(list(loss.values())).sum() if isinstance(loss, dict) else loss


def step(model, loss, columns, labels=None, scale=1.0, **kwargs):
    """Values of the loss, all its components if it has some, and gradients."""
    model.zero_grad()
    value = loss(columns_of(model, columns, **kwargs), labels)
    (total(value) * scale).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return [v.detach() for v in (value.values() if isinstance(value, dict) else [value])], gradients


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.mark.parametrize("mini_batches", MINI_BATCHES, ids=str)
@pytest.mark.parametrize("embed_once", [True, False])
@pytest.mark.parametrize("side", ["left", "right"])
def test_texts_equal_the_uncached_loss(tiny_model, kind, side, embed_once, mini_batches):
    tiny_model.double().tokenizer.padding_side = side
    plain, cached = KINDS[kind]
    columns, labels = data(kind)
    ours = step(tiny_model, cached(tiny_model, embed_once=embed_once, **mini_batches), columns, labels)
    assert_same(ours, step(tiny_model, plain(tiny_model, embed_once=False), columns, labels), 1e-9)


@pytest.mark.parametrize("mini_batches", MINI_BATCHES, ids=str)
@pytest.mark.parametrize("embed_once", [True, False])
@pytest.mark.parametrize("side", ["left", "right"])
def test_pictures_equal_the_uncached_loss(tiny_multimodal, side, embed_once, mini_batches):
    tiny_multimodal.tokenizer.padding_side = side
    loss = CachedDLELoss(tiny_multimodal, embed_once=embed_once, **mini_batches)
    ours = step(tiny_multimodal, loss, PICTURES, LABELS, prompt="<ocr> ")
    plain = DLELoss(tiny_multimodal, embed_once=False)
    expected = step(tiny_multimodal, plain, PICTURES, LABELS, prompt="<ocr> ")
    assert any("visual" in name for name in expected[1])
    assert_same(ours, expected, 1e-5)


@pytest.mark.parametrize("settings", [{"negatives": "batch"}, {"mask_duplicates": False}], ids=str)
def test_settings_of_the_uncached_loss_count(tiny_model, settings):
    tiny_model.double()
    ours = step(tiny_model, CachedDLELoss(tiny_model, **settings, mini_batch_size=2), TEXTS[:2], LABELS)
    assert_same(ours, step(tiny_model, DLELoss(tiny_model, **settings), TEXTS[:2], LABELS), 1e-9)
    settings = {"temperature": 0.1, "hard_negative_weight": 0.5, "same_anchor": "mask", "symmetric": True}
    weights = torch.tensor([1.0, 0.5, 2.0, 1.0, 0.5], dtype=torch.float64)
    ours = step(tiny_model, CachedSupConNLILoss(tiny_model, **settings, mini_batch_size=2), TEXTS, weights)
    assert_same(ours, step(tiny_model, SupConNLILoss(tiny_model, **settings), TEXTS, weights), 1e-9)


@pytest.mark.parametrize("embed_once", [True, False])
@pytest.mark.parametrize("side", ["left", "right"])
def test_prompts_that_are_not_pooled(tiny_base, side, embed_once):
    """Pooling then writes into the attention mask, and the second pass must not see it."""
    model = SentenceTransformer(modules=[Transformer(str(tiny_base)), Pooling(32, "mean", include_prompt=False)])
    model.double().tokenizer.padding_side = side
    loss = CachedSupConNLILoss(model, embed_once=embed_once, mini_batch_num_tokens=20)
    expected = step(model, SupConNLILoss(model, embed_once=False), TEXTS, prompt="Câu: ")
    assert_same(step(model, loss, TEXTS, prompt="Câu: "), expected, 1e-9)


@pytest.mark.parametrize("side", ["left", "right"])
def test_inputs_that_cannot_be_forwarded_together(tiny_model, side, forwards):
    """Columns of one length each, padded by nothing, and columns with padding on both sides."""
    tiny_model.double().tokenizer.padding_side = side
    columns, shapes = [[S[0], S[0]], ["mưa", "mưa"], [S[4], S[4]]], forwards(tiny_model)
    ours = step(tiny_model, CachedSupConNLILoss(tiny_model), columns)
    assert len(shapes) == 2 * len({width for _, width in shapes}) == 6
    assert_same(ours, step(tiny_model, SupConNLILoss(tiny_model), columns), 1e-9)

    both_sides = {
        "input_ids": torch.tensor([[1, 5, 6], [7, 8, 1]]),
        "attention_mask": torch.tensor([[0, 1, 1], [1] * 3]),
    }
    both_sides["attention_mask"][1, 2] = 0
    results = []
    for loss in (CachedSupConNLILoss(tiny_model, mini_batch_size=1), SupConNLILoss(tiny_model)):
        tiny_model.zero_grad()
        loss([tiny_model.preprocess(S[:2]), {key: value.clone() for key, value in both_sides.items()}]).backward()
        results.append(([], {name: p.grad.clone() for name, p in tiny_model.named_parameters() if p.grad is not None}))
    assert_same(*results, 1e-9)


def test_mini_batches_hold_each_distinct_input_once(tiny_model, forwards):
    shapes = forwards(tiny_model)
    step(tiny_model, CachedSupConNLILoss(tiny_model, mini_batch_size=3), TEXTS)
    distinct = len({text for column in TEXTS for text in column}) + 1  # one is its row's own negative
    assert [rows for rows, _ in shapes] == [3, 3, 2] * 2 and distinct == 8
    widths = [width for _, width in shapes]
    assert widths == sorted(widths[:3]) * 2 and len(set(widths)) > 1  # the longest together
    tokens = []
    tiny_model.register_forward_pre_hook(lambda _, args: tokens.append(int(args[0]["attention_mask"].sum())))
    for budget, most in ((30, 3), (10, 1)):  # inputs have 9 to 14 tokens: some are longer than 10
        shapes.clear()
        tokens.clear()
        step(tiny_model, CachedSupConNLILoss(tiny_model, mini_batch_num_tokens=budget), TEXTS)
        assert max(rows for rows, _ in shapes) == most
        assert max(tokens) <= max(budget, 14) and sum(rows for rows, _ in shapes) == 2 * distinct
    shapes.clear()
    with torch.no_grad():
        CachedSupConNLILoss(tiny_model, mini_batch_size=3)(columns_of(tiny_model, TEXTS))
    assert [rows for rows, _ in shapes] == [3, 3, 2]  # an evaluation has no second pass


@pytest.mark.parametrize("embed_once", [True, False])
def test_both_passes_have_the_same_dropout(tiny_model, embed_once):
    tiny_model[0].model.embeddings.dropout.p = 0.5
    tiny_model.double().train()
    loss, outputs, groups = CachedSupConNLILoss(tiny_model, embed_once=embed_once, mini_batch_size=3), [], []
    before = tiny_model.register_forward_pre_hook(
        lambda _, args: groups.append(
            {k: v.clone() for k, v in args[0].items() if k in ("input_ids", "attention_mask")}
        )
    )
    after = tiny_model.register_forward_hook(lambda _, args, output: outputs.append(output["sentence_embedding"]))
    torch.manual_seed(0)
    ours = step(tiny_model, loss, TEXTS)
    after_step = torch.rand(1)
    before.remove()
    after.remove()
    half = len(outputs) // 2
    assert len(outputs) == 2 * half and half > 2
    for first, second in zip(outputs[:half], outputs[half:], strict=True):
        assert torch.equal(first, second) and second.requires_grad and not first.requires_grad
    # By hand: one graph through all mini-batches of the first pass, with the random numbers that pass drew.
    tiny_model.zero_grad()
    torch.manual_seed(0)
    embedded = torch.cat([tiny_model(dict(group))["sentence_embedding"] for group in groups[:half]])
    assert torch.equal(torch.rand(1), after_step)  # the second pass leaves the generator where it was
    columns = columns_of(tiny_model, TEXTS)
    ids = [
        tuple(row[m.bool()].tolist())
        for c in columns
        for row, m in zip(c["input_ids"], c["attention_mask"], strict=True)
    ]
    if embed_once:
        tokens = [tuple(row[m.bool()].tolist()) for g in groups[:half] for row, m in zip(*g.values(), strict=True)]
        # TEXTS[2][3] is its row's own anchor, and its row's second view stands after the first.
        places = [len(tokens) - 1 - tokens[::-1].index(t) if n == 13 else tokens.index(t) for n, t in enumerate(ids)]
    else:
        places = list(range(15))
    number = {text: number for number, text in enumerate(dict.fromkeys(ids))}
    texts = torch.tensor([number[text] for text in ids])
    value = loss.compute_loss_from_embeddings(list(embedded[places].split(5)), None, list(texts.split(5)))
    value.backward()
    gradients = {name: p.grad for name, p in tiny_model.named_parameters() if p.grad is not None}
    assert_same(ours, ([value.detach()], gradients), 1e-9)


def test_without_the_replay_of_random_numbers_gradients_are_wrong(tiny_model, monkeypatch):
    """What the test above would show."""
    tiny_model[0].model.embeddings.dropout.p = 0.5
    tiny_model.train()
    outputs = []
    tiny_model.register_forward_hook(lambda _, args, output: outputs.append(output["sentence_embedding"]))
    monkeypatch.setattr(RandContext, "__enter__", lambda self: None)
    monkeypatch.setattr(RandContext, "__exit__", lambda self, *error: None)
    step(tiny_model, CachedSupConNLILoss(tiny_model), TEXTS)
    assert not torch.isclose(outputs[0], outputs[1]).all()


def test_matryoshka_wraps_both(tiny_model, kind):
    tiny_model.double()
    plain, cached = KINDS[kind]
    columns, labels = data(kind)
    dims, weights = [32, 8, 4], [1.0, 0.5, 0.25]
    expected = step(tiny_model, MatryoshkaLoss(tiny_model, plain(tiny_model), dims, weights), columns, labels)
    loss = MatryoshkaLoss(tiny_model, cached(tiny_model, mini_batch_size=3), dims, weights)
    values, gradients = step(tiny_model, loss, columns, labels)
    assert_same((values, gradients), expected, 1e-9)
    if kind == "dle":
        summed = step(tiny_model, MatryoshkaLoss(tiny_model, Summed(plain(tiny_model)), dims, weights), columns, labels)
        assert_same(([torch.stack(values).sum()], gradients), summed, 1e-9)
        parts = [
            step(tiny_model, MatryoshkaLoss(tiny_model, CachedDLELoss(tiny_model), [dim]), columns, labels)[0]
            for dim in dims
        ]
        for value, of_dims in zip(values, zip(*parts, strict=True), strict=True):
            torch.testing.assert_close(value, sum(w * v for w, v in zip(weights, of_dims, strict=True)))


def test_scaled_and_accumulated_gradients(tiny_model, kind):
    """What the trainer does for gradient accumulation and mixed precision; two batches wait at the same time."""
    tiny_model.double()
    plain, cached = KINDS[kind]
    results = []
    for loss in (cached(tiny_model, mini_batch_size=3), plain(tiny_model)):
        tiny_model.zero_grad()
        values = []
        for columns in (data(kind)[0], data(kind, [column[::-1] for column in TEXTS])[0]):
            values.append(total(loss(columns_of(tiny_model, columns), data(kind)[1])))
        (values[0] / 4 * 1024).backward()
        (values[1] / 4 * 1024).backward()
        gradients = {name: p.grad.clone() for name, p in tiny_model.named_parameters() if p.grad is not None}
        results.append(([v.detach() for v in values], gradients))
    assert_same(*results, 1e-9)


def test_autocast_holds_for_the_second_pass(tiny_model, kind):
    """The caller's has ended then; and backward inside of it must not find weights that were cast without gradients."""
    plain, cached = KINDS[kind]
    columns, labels = data(kind)
    dtypes, results = [], []
    handle = (
        tiny_model[0]
        .model.encoder.layer[1]
        .output.dense.register_forward_hook(lambda _, args, output: dtypes.append(output.dtype))
    )
    for loss in (cached(tiny_model), plain(tiny_model)):
        tiny_model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            value = total(loss(columns_of(tiny_model, columns), labels))
            value.backward()
        gradients = {name: p.grad.clone() for name, p in tiny_model.named_parameters() if p.grad is not None}
        results.append(([value.detach()], gradients))
    with torch.autocast("cpu", torch.bfloat16):
        value = total(cached(tiny_model)(columns_of(tiny_model, columns), labels))
    dtypes.clear()
    value.backward()
    handle.remove()
    assert dtypes and set(dtypes) == {torch.bfloat16}
    assert_same(*results, 0.02)


@pytest.mark.parametrize("limit", [None, 10**6])
def test_gradients_of_the_embeddings_are_not_rounded_under_autocast(limit):
    results = []
    for enabled in (False, True):
        generator = torch.Generator().manual_seed(0)
        reps = [[torch.randn(6, 8, generator=generator).requires_grad_()] for _ in "ab"]
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            CachedSupConNLILoss(None, max_matrix_bytes=limit).calculate_loss(reps, with_backward=True)
        results.append([column.grad for (column,) in reps])
    torch.testing.assert_close(*results, atol=1e-6, rtol=1e-5)


def test_components_are_those_of_the_uncached_loss(tiny_model):
    columns = columns_of(tiny_model, TEXTS[:2])
    ours, plain = (loss(tiny_model)(columns, LABELS) for loss in (CachedDLELoss, DLELoss))
    assert list(ours) == list(plain)
    for name, value in plain.items():
        assert ours[name].ndim == 0 and ours[name].requires_grad
        torch.testing.assert_close(ours[name], value, msg=name)
    alone = CachedDLELoss(tiny_model)(columns_of(tiny_model, [["mưa"], ["nắng"]]), LABELS[2:3])
    assert list(alone) == list(plain)


def test_other_sums_than_the_plain_one_are_refused(tiny_model):
    loss = CachedDLELoss(tiny_model)
    components = loss(columns_of(tiny_model, TEXTS[:2]), LABELS)
    with pytest.raises(ValueError, match="sum of its components"):
        components["text_pair_info_nce"].backward()
    components = loss(columns_of(tiny_model, TEXTS[:2]), LABELS)
    with pytest.raises(ValueError, match="sum of its components"):
        sum(number * value for number, value in enumerate(components.values())).backward()


def test_an_evaluation_has_the_values_and_no_graph(tiny_model, kind):
    plain, cached = KINDS[kind]
    columns, labels = data(kind)
    with torch.no_grad():
        ours = cached(tiny_model, mini_batch_size=2)(columns_of(tiny_model, columns), labels)
        expected = plain(tiny_model)(columns_of(tiny_model, columns), labels)
    assert not total(ours).requires_grad
    torch.testing.assert_close(ours, expected)


def test_the_observer_sees_the_whole_batch_once(tiny_model):
    loss, seen = CachedDLELoss(tiny_model, mini_batch_size=1), []
    loss.observer = lambda name, term, pairs, values: seen.append((name, len(values), isinstance(pairs, PairBatch)))
    step(tiny_model, loss, TEXTS[:2], LABELS)
    assert sorted(rows for _, rows, _ in seen) == [1] * 2 + [2] * 5 and len({name for name, *_ in seen}) == 7
    assert all(is_batch for *_, is_batch in seen)
    monitor = DLEMonitor(loss)
    step(tiny_model, loss, TEXTS[:2], LABELS)
    assert {int(count) for name, (_, count) in monitor._totals.items() if "in_order" not in name} == {1, 2}


@pytest.mark.parametrize("cached", [CachedSupConNLILoss, CachedDLELoss])
def test_arguments(cached):
    plain = cached.__mro__[2]
    own = list(inspect.signature(cached).parameters)
    added = ["mini_batch_size", "mini_batch_num_tokens", "show_progress_bar", "max_matrix_bytes"]
    assert own == [*inspect.signature(plain).parameters, *added]
    assert issubclass(cached, plain) and not getattr(plain, "uses_gradient_cache", False)
    config = cached(None, mini_batch_num_tokens=7).get_config_dict()
    own = {"mini_batch_size": 32, "mini_batch_num_tokens": 7, "max_matrix_bytes": 2**24}
    assert config == plain(None).get_config_dict() | own
    assert "2101.06983" in cached(None).citation
    for name in ("mini_batch_size", "mini_batch_num_tokens", "max_matrix_bytes"):
        for value in (0, 1.5, math.inf):
            with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1, got {value}"):
                cached(None, **{name: value})
    static = SentenceTransformer(modules=[StaticEmbedding(tiny_tokenizer().backend_tokenizer, embedding_dim=4)])
    with pytest.raises(ValueError, match="StaticEmbedding"):
        cached(static)


def run_rank(rank, folder, base, multimodal):
    with gloo(rank, folder):
        results = {}
        for kind, (_, cached) in KINDS.items():
            for wrapped in (True, False):
                model = SentenceTransformer(modules=[Transformer(base), Pooling(32, "mean")], device="cpu").double()
                shapes = []
                model.register_forward_pre_hook(lambda _, args, to=shapes: to.append(tuple(args[0]["input_ids"].shape)))
                # Buffers are broadcast: a process that waits for more of them than the other sends would wait forever.
                ddp = DistributedDataParallel(model, find_unused_parameters=True, broadcast_buffers=True)
                sizes = {"mini_batch_size": 2, "max_matrix_bytes": 1 if wrapped else 300}  # one row at a time, or some
                loss = cached(ddp if wrapped else model, gather_across_devices=True, **sizes)
                columns = BY_RANK[rank] if kind == "supcon" else BY_RANK[rank][:2]
                for _ in range(2):  # DDP regroups its buckets after the first step
                    model.zero_grad()
                    labels = None if kind == "supcon" else RANK_LABELS[4 * rank : 4 * rank + 4]
                    total(loss([model.preprocess(column) for column in columns], labels)).backward()
                if not wrapped:  # as DDP does
                    for parameter in model.parameters():
                        if parameter.grad is not None:
                            dist.all_reduce(parameter.grad)
                            parameter.grad /= 2
                gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
                results[kind, wrapped] = gradients, len(shapes)
        # The last mini-batch of rank 1 has no image, nor has any of rank 0: unused parameters, and yet their gradient.
        model = build_vipolyqwen(multimodal, embedding_dimension=16, min_pixels=28 * 28, max_pixels=8 * 28 * 28)
        ddp = DistributedDataParallel(model, find_unused_parameters=True)
        for embed_once in (True, False):
            loss = CachedDLELoss(ddp, gather_across_devices=True, embed_once=embed_once, mini_batch_size=2)
            for _ in range(2):
                model.zero_grad()
                total(loss(columns_of(model, MIXED[rank]), LABELS[1:])).backward()
            gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
            results["pictures", embed_once] = gradients, model.state_dict()
        torch.save(results, f"{folder}/rank{rank}")


MIXED = [[S[:4], S[4:8]], [PICTURES[0][:4], S[:4]]]
RANK_LABELS = torch.tensor([[0, 0.1], [0, 0.8], [1, NAN], [4, NAN], [4, NAN], [4, NAN], [0, 0.5], [1, NAN]])


def test_two_processes_equal_the_joint_batch(tiny_base, tmp_path):
    multimodal = str(save_tiny_qwen2_vl(tmp_path / "qwen2-vl"))
    on_two(run_rank, str(tmp_path), str(tiny_base), multimodal)
    first, second = (torch.load(tmp_path / f"rank{rank}") for rank in (0, 1))
    for kind, (plain, _) in KINDS.items():
        model = SentenceTransformer(modules=[Transformer(str(tiny_base)), Pooling(32, "mean")], device="cpu").double()
        joint = [[*own, *others] for own, others in zip(*BY_RANK, strict=True)]
        columns, labels = (joint, None) if kind == "supcon" else (joint[:2], RANK_LABELS)
        expected = step(model, plain(model), columns, labels)[1]
        for wrapped in (True, False):
            (mine, few), (theirs, many) = first[kind, wrapped], second[kind, wrapped]
            assert (few < many) if wrapped else (few == many)  # see `_may_differ_in_forwards`
            for gradients in (mine, theirs):
                assert_same(([], gradients), ([], expected), 1e-6)

    model = build_vipolyqwen(multimodal, embedding_dimension=16, min_pixels=28 * 28, max_pixels=8 * 28 * 28)
    model.load_state_dict(first["pictures", True][1])  # DDP begins with the weights of the first
    columns = [[*own, *others] for own, others in zip(*MIXED, strict=True)]
    expected = step(model, DLELoss(model), columns, torch.cat([LABELS[1:]] * 2))[1]
    assert any("visual" in name for name in expected)
    for rank in (first, second):
        for embed_once in (True, False):
            assert_same(([], rank["pictures", embed_once][0]), ([], expected), 1e-5)


def test_training_viclsr_ends_with_the_same_weights(tiny_base, tmp_path):
    rows = Dataset.from_dict({name: TEXTS[i] * 2 for i, name in enumerate(("anchor", "positive", "negative"))})
    settings = SETTINGS | {"per_device_train_batch_size": 5, "gradient_accumulation_steps": 2, "num_train_epochs": 3}
    settings |= {"save_strategy": "no", "learning_rate": 1e-3, "learning_rate_mapping": {}}
    results, start = [], None
    for make in (SupConNLILoss, lambda model: CachedSupConNLILoss(model, mini_batch_size=3)):
        torch.manual_seed(0)
        model = SentenceTransformer(modules=[Transformer(str(tiny_base)), Pooling(32, "mean")], device="cpu").double()
        start = {name: value.clone() for name, value in model.state_dict().items()}
        train_viclsr(model, rows, tmp_path / str(len(results)), loss=make(model), eval_strategy="no", **settings)
        results.append(model.state_dict())
    moved = 0
    for name, expected in results[0].items():
        torch.testing.assert_close(results[1][name], expected, atol=1e-5, rtol=0, msg=name)
        moved = max(moved, float((expected - start[name]).abs().max()))
    assert moved > 1e-3


def test_training_vipolyqwen_ends_with_the_same_weights_and_log(tiny_model, tmp_path):
    tiny_model.double()
    start = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    pairs = [sentence.split(maxsplit=4) for sentence in SENTENCES]
    columns = {"anchor": [" ".join(words[:4]) for words in pairs], "positive": [words[4] for words in pairs]}
    rows = columns | {"task": ["ocr", "ocr", "text_pair", "text_pair"] * 2, "score": [NAN, NAN, 0.2, 0.7] * 2}
    settings = SETTINGS | {"per_device_train_batch_size": 4, "num_train_epochs": 4, "gradient_accumulation_steps": 2}
    settings |= {"save_strategy": "no", "eval_strategy": "no", "learning_rate": 1e-3, "info_nce_warm_up": 0.5}
    results, logs = [], []
    for make in (DLELoss, lambda model: CachedDLELoss(model, mini_batch_size=3)):
        tiny_model.load_state_dict(start)
        loss = make(tiny_model)
        folder = tmp_path / str(len(results))
        trainer = train_vipolyqwen(tiny_model, Dataset.from_dict(rows), folder, loss=loss, **settings)
        results.append({name: value.clone() for name, value in tiny_model.state_dict().items()})
        logs.append([entry for entry in trainer.state.log_history if "loss" in entry])
    for name, expected in results[0].items():
        torch.testing.assert_close(results[1][name], expected, atol=1e-5, rtol=0, msg=name)
    assert max(float((value - start[name]).abs().max()) for name, value in results[0].items()) > 1e-3
    assert [entry.keys() for entry in logs[0]] == [entry.keys() for entry in logs[1]] and len(logs[0]) == 4
    assert "dle/ocr_hardest_negative_margin" in logs[1][0]
    assert [entry["ocr_hardest_negative_margin"] > 0 for entry in logs[1]] == [False, False, True, True]
    for plain, cached in zip(*logs, strict=True):
        for name, value in plain.items():
            assert cached[name] == pytest.approx(value, abs=1e-5), name

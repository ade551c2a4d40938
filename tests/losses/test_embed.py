"""`embed_distinct` against one forward a column: the same values and gradients, from fewer and shorter inputs."""

from __future__ import annotations

import random
from itertools import combinations

import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.losses import AdaptiveLayerLoss, MatryoshkaLoss
from sentence_transformers.sentence_transformer.modules import Pooling
from torch.nn.parallel import DistributedDataParallel

from st_vi.losses import CachedDLELoss, CachedSupConNLILoss, DLELoss, SupConNLILoss, embed
from st_vi.losses.columns import check_columns, content_ids
from st_vi.losses.embed import Inputs, cut, embed_distinct
from tests.conftest import SENTENCES
from tests.helpers.columns import BY_RANK, PICTURES, TEXTS, S, assert_same, columns_of, loss_step, step
from tests.helpers.processes import gloo, on_two


def embed_both(model, columns, **kwargs):
    """Ours and the naive way, on features of their own."""
    features = columns_of(model, columns, **kwargs)
    ours = step(model, embed_distinct(model, features, content_ids(features)))
    naive = step(model, [model(column)["sentence_embedding"] for column in columns_of(model, columns, **kwargs)])
    return ours, naive


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_texts_equal_the_naive_way(tiny_model, side, dtype):
    tiny_model.to(dtype).tokenizer.padding_side = side
    assert_same(*embed_both(tiny_model, TEXTS), 1e-10 if dtype is torch.float64 else 1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("prompt", [None, "<ocr> "])
def test_pictures_equal_the_naive_way(tiny_multimodal, side, prompt):
    tiny_multimodal.tokenizer.padding_side = side
    # In double there is no more to see: Qwen2-VL computes its rotations and norms in fp32.
    assert_same(*embed_both(tiny_multimodal, PICTURES, prompt=prompt), 1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_prompts_that_are_not_pooled(tiny_base, side):
    model = SentenceTransformer(modules=[Transformer(str(tiny_base)), Pooling(32, "mean", include_prompt=False)])
    model.double().tokenizer.padding_side = side
    assert_same(*embed_both(model, TEXTS, prompt="Câu: "), 1e-10)


def test_every_distinct_input_is_forwarded_once(tiny_model, forwards):
    features = columns_of(tiny_model, TEXTS)
    before = [{key: value.clone() for key, value in column.items() if key != "modality"} for column in features]
    shapes = forwards(tiny_model)
    embed_distinct(tiny_model, features, content_ids(features))
    # Seven texts, and one of them once more as its row's own negative.
    assert sum(rows for rows, _ in shapes) == len({text for column in TEXTS for text in column}) + 1
    for column, old in zip(features, before, strict=True):
        assert column.keys() == {*old, "modality"} and all(torch.equal(column[key], old[key]) for key in old)
    shapes.clear()
    embed_distinct(tiny_model, features)
    assert sum(rows for rows, _ in shapes) == 15


def test_little_padding_is_forwarded(tiny_model, forwards, monkeypatch):
    monkeypatch.setattr(embed, "_CPU_OVERHEAD", 3)
    columns = [[" ".join(SENTENCES), *S[:3]], [*S[3:6], "mưa"]]
    features = columns_of(tiny_model, columns)
    real, shapes = sum(int(column["attention_mask"].sum()) for column in features), forwards(tiny_model)
    embeddings = embed_distinct(tiny_model, features, content_ids(features))
    forwarded = sum(rows * width for rows, width in shapes)
    before = sum(column["attention_mask"].numel() for column in features)
    assert forwarded - real < (before - real) / 10
    shapes.clear()
    monkeypatch.setattr(embed, "_MOST_TOKENS", 24)
    smaller = embed_distinct(tiny_model, features, content_ids(features))
    assert all(rows * width <= 24 or rows == 1 for rows, width in shapes)
    assert max(rows for rows, _ in shapes) == 2
    for column, first, second in zip(features, embeddings, smaller, strict=True):
        naive = tiny_model(column)["sentence_embedding"]
        torch.testing.assert_close(first, naive, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(second, naive, atol=1e-5, rtol=1e-5)


def test_two_views_of_a_row_have_dropout_of_their_own(tiny_model, forwards):
    tiny_model[0].model.embeddings.dropout.p = 0.5
    tiny_model.train()
    features, shapes = columns_of(tiny_model, [[S[0], S[1], S[0]]] * 2), forwards(tiny_model)
    first, second = embed_distinct(tiny_model, features, content_ids(features))
    assert not torch.isclose(first, second).all(dim=1).any()
    assert torch.equal(first[0], first[2]) and torch.equal(second[0], second[2])
    assert sum(rows for rows, _ in shapes) == 4


@pytest.mark.parametrize("side", ["left", "right"])
def test_columns_of_other_metadata_stay_apart(tiny_base, side, forwards):
    model = SentenceTransformer(modules=[Transformer(str(tiny_base)), Pooling(32, "mean", include_prompt=False)])
    model.double().tokenizer.padding_side = side

    def features():
        prompted, plain = model.preprocess(TEXTS[0], prompt="Câu: "), model.preprocess([f"Câu: {t}" for t in TEXTS[0]])
        per_row = prompted | {"prompt_length": torch.full((5,), prompted["prompt_length"])}  # as from a data loader
        return [prompted, plain, per_row]

    columns, shapes = features(), forwards(model)
    assert all(torch.equal(*pair) for pair in combinations(content_ids(columns), 2))  # the same tokens
    ours = step(model, embed_distinct(model, columns, content_ids(columns)))
    assert sum(rows for rows, _ in shapes) == 3 + 2 * 3  # the prompted columns are two views of each other
    assert_same(ours, step(model, [model(column)["sentence_embedding"] for column in features()]), 1e-10)
    with torch.no_grad():
        assert not torch.isclose(ours[0][0], ours[0][1]).any(dim=1).all()


def test_plain_pictures_of_other_shape_are_other_inputs(tiny_multimodal):
    tiny_multimodal.tokenizer.padding_side = "right"
    lying, standing = (Image.new("RGB", size, "red") for size in ((112, 28), (28, 112)))
    ours, naive = embed_both(tiny_multimodal, [[lying, standing], ["đỏ", "đỏ"]])
    assert not torch.allclose(naive[0][0][0], naive[0][0][1])
    assert_same(ours, naive, 1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_nothing_is_padded_with_a_token_nobody_knows(tiny_model, side, forwards):
    """Each column of one length: the padding token is nowhere to be seen, and XLM-R counts positions by it."""
    tiny_model.double().tokenizer.padding_side = side
    columns, shapes = [[S[0], S[0]], ["mưa", "mưa"], [S[4], S[4]]], forwards(tiny_model)
    ours, naive = embed_both(tiny_model, columns)
    assert len(shapes[:3]) == len({width for _, width in shapes[:3]}) == 3 and len(shapes) == 6
    assert_same(ours, naive, 1e-10)


def test_narrow_columns_get_the_padding_of_the_wide_one():
    rows = [torch.tensor([[5, 6, 7], [8, 1, 1]]), torch.tensor([[9], [8]])]
    inputs = Inputs.read([{"input_ids": ids, "attention_mask": (ids != 1).long()} for ids in rows])
    features = inputs.features([0, 2])
    assert features["input_ids"].tolist() == [[5, 6, 7], [9, 1, 1]]
    assert features["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_columns_that_do_not_fit_are_named():
    assert content_ids([{"input_ids": torch.ones(2, 3)}]) is None  # neither a mask nor lengths
    with pytest.raises(ValueError, match=r"embeddings must be \(rows, dimensions\).* got \(0, 4\)"):
        check_columns([torch.ones(0, 4)], None)
    with pytest.raises(ValueError, match=r"ids must be \(3,\) for each of 2 columns, got \(3,\)"):
        check_columns([torch.ones(3, 4)] * 2, [torch.arange(3)])


def test_what_it_cannot_regroup_is_embedded_by_column(tiny_model, forwards):
    text = tiny_model.preprocess(S[:2])
    both_sides = {key: value.clone() for key, value in text.items() if key != "modality"}
    both_sides["attention_mask"][0, 0] = both_sides["attention_mask"][1, -1] = 0
    strange = [
        text | {"pixel_values_videos": torch.ones(2, 3)},
        text | {"pixel_values": torch.ones(2, 3, 8, 8)},
        text | {"position_ids": torch.ones(2, 3)},
        text | {"texts": ["a", "b"]},
        {"input_ids": torch.ones(5), "offsets": torch.zeros(2)},
        text | {"token_type_ids": torch.zeros_like(text["input_ids"])},
        both_sides,
    ]
    for column in strange:
        assert Inputs.read([text, column]) is None
    assert Inputs.read([text, text]) is not None
    shapes = forwards(tiny_model)
    features = [text, both_sides]
    first, second = embed_distinct(tiny_model, features, content_ids(features))
    assert shapes == [tuple(column["input_ids"].shape) for column in features]
    assert torch.equal(first, text["sentence_embedding"]) and torch.equal(second, both_sides["sentence_embedding"])


@pytest.mark.parametrize("overhead", [0.5, 3, 10, 1000])
@pytest.mark.parametrize("count", [None, 1, 2, 3, 5])
def test_cuts_are_the_cheapest_there_are(overhead, count):
    generator = torch.Generator().manual_seed(0)
    for size in (5, 6, 9):
        lengths = sorted(torch.randint(1, 9, (size,), generator=generator).tolist())

        def price(ends, lengths=lengths):
            return sum(lengths[j - 1] * (j - i) + overhead for i, j in zip([0, *ends], ends, strict=False))

        ways = [
            [*ends, size]
            for groups in ([count] if count else range(1, size + 1))
            for ends in combinations(range(1, size), groups - 1)
        ]
        actual = cut(lengths, overhead, count)
        assert actual in ways
        assert price(actual) == min(map(price, ways))


LABELS = torch.tensor([[0, 0.1], [0, 0.8], [1, float("nan")], [4, float("nan")], [4, float("nan")]])


@pytest.mark.parametrize("wrap", ["alone", "matryoshka", "adaptive layers"])
@pytest.mark.parametrize("kind", ["supcon", "dle"])
def test_losses_are_the_same_with_and_without(tiny_model, kind, wrap):
    if wrap == "adaptive layers":
        tiny_model[0].model.config.output_hidden_states = True
    results = []
    for embed_once in (True, False):
        if kind == "supcon":
            loss, columns, labels = SupConNLILoss(tiny_model, embed_once=embed_once), TEXTS, None
        else:
            loss, columns, labels = DLELoss(tiny_model, embed_once=embed_once), TEXTS[:2], LABELS
        assert loss.get_config_dict()["embed_once"] is embed_once
        if wrap == "matryoshka":
            loss = MatryoshkaLoss(tiny_model, loss, [32, 8])
        elif wrap == "adaptive layers":
            loss = AdaptiveLayerLoss(tiny_model, loss, kl_temperature=0)
            random.seed(0)  # it draws the layer
        results.append(loss_step(tiny_model, loss, columns, labels))
    assert_same(*results, 1e-5)


@pytest.mark.parametrize("embed_once", [True, False])
def test_repeats_that_count_as_negatives_are_merged_all_the_same(tiny_model, embed_once, forwards):
    shapes = forwards(tiny_model)
    loss = DLELoss(tiny_model, mask_duplicates=False, embed_once=embed_once)
    actual = sum(loss(columns_of(tiny_model, TEXTS[:2]), LABELS).values())
    embeddings = [tiny_model(column)["sentence_embedding"] for column in columns_of(tiny_model, TEXTS[:2])]
    torch.testing.assert_close(actual, sum(loss.compute_loss_from_embeddings(embeddings, LABELS).values()))
    assert sum(rows for rows, _ in shapes[:-2]) == (5 if embed_once else 10)


def run_rank(rank, folder, base):
    with gloo(rank, folder):
        model = SentenceTransformer(modules=[Transformer(base), Pooling(32, "mean")], device="cpu").double()
        shapes = []
        model.register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0]["input_ids"].shape)))
        # Buffers are broadcast in every forward: a process with fewer of them would wait forever.
        wrapped = DistributedDataParallel(model, find_unused_parameters=True, broadcast_buffers=True)
        loss = SupConNLILoss(wrapped, gather_across_devices=True)
        for _ in range(2):  # DDP regroups its buckets after the first step
            model.zero_grad()
            loss([model.preprocess(column) for column in BY_RANK[rank]]).backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        torch.save((gradients, shapes), f"{folder}/rank{rank}")


def test_two_processes_with_other_repeats_equal_the_joint_batch(tiny_base, tmp_path):
    on_two(run_rank, str(tmp_path), str(tiny_base))
    (first, few), (second, many) = (torch.load(tmp_path / f"rank{rank}") for rank in (0, 1))
    assert len(few) == len(many) == 6  # two steps of as many forwards as columns
    assert (sum(rows for rows, _ in few), sum(rows for rows, _ in many)) == (6, 20)
    model = SentenceTransformer(modules=[Transformer(str(tiny_base)), Pooling(32, "mean")], device="cpu").double()
    joint = [[*own, *others] for own, others in zip(*BY_RANK, strict=True)]
    SupConNLILoss(model, embed_once=False)(columns_of(model, joint)).backward()
    expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert first.keys() == second.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(first[name], gradient, atol=1e-6, rtol=1e-6, msg=name)
        torch.testing.assert_close(second[name], gradient, atol=1e-6, rtol=1e-6, msg=name)


@pytest.mark.parametrize("loss", [SupConNLILoss, CachedSupConNLILoss, DLELoss, CachedDLELoss])
def test_what_is_no_list_of_columns_is_said(tiny_model, loss):
    features = tiny_model.preprocess(SENTENCES)
    for given in ([], features, [SENTENCES, SENTENCES]):
        with pytest.raises(TypeError, match="a loss takes a list with the features of each column"):
            loss(tiny_model)(given, None)


def test_images_that_were_cut_by_rows_are_named():
    """As Accelerate cuts the batches of a stream."""
    grids, counts = torch.tensor([[1, 4, 4]]), torch.tensor([1])
    cut = {
        "input_ids": torch.ones(1, 3, dtype=torch.long),
        "attention_mask": torch.ones(1, 3, dtype=torch.long),
        "pixel_values": torch.ones(1, 8),
        "image_grid_thw": grids,
        "num_images_per_sample": counts,
    }
    with pytest.raises(ValueError, match=r"1 of its 16 patches of images: .*dispatch_batches"):
        content_ids([cut])

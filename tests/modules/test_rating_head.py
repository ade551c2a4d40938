"""`RatingHead` against a loop, its scale, its fit, and its place in a model: saved, loaded, and harmless to vectors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import BoW

from st_vi import load
from st_vi.modules import RatingHead


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def trained_head(size=3, levels=4):
    head = RatingHead(size, levels).double()
    head.rating_weight.data = random(levels, 2 * size, seed=3)
    head.rating_bias.data = random(levels, seed=4)
    return head


def naive(head, u, v):
    rows = []
    for a, b in zip(u, v, strict=True):
        a, b = a / a.norm(), b / b.norm()
        size, levels = len(a), head.num_levels
        x = [abs(a[d] - b[d]) / math.sqrt(2) for d in range(size)]
        x += [math.sqrt(size / 2) * a[d] * b[d] for d in range(size)]
        logits = []
        for k in range(levels):
            t = 2 * k / (levels - 1) - 1
            logit = head.rating_scale * t * ((a @ b) - 0.5) + head.rating_bias[k]
            logits.append(logit + sum(w * value for w, value in zip(head.rating_weight[k], x, strict=True)))
        total = sum(logit.exp() for logit in logits)
        rows.append(torch.stack([(logit.exp() / total).log() for logit in logits]))
    return torch.stack(rows)


def test_equals_the_naive_loop_in_values_and_gradients():
    head = trained_head()
    u, v = random(5, 3, seed=1).requires_grad_(), random(5, 3, seed=2).requires_grad_()
    inputs, weights = [u, v, *head.parameters()], random(5, 4, seed=5)
    mine, theirs = head.log_probabilities(u, v), naive(head, u, v)
    torch.testing.assert_close(mine, theirs)
    for one, other in zip(
        *(torch.autograd.grad((found * weights).sum(), inputs) for found in (mine, theirs)), strict=True
    ):
        torch.testing.assert_close(one, other)
        assert other.abs().sum() > 0


def test_a_new_head_ranks_as_the_cosine_does_and_order_makes_no_difference():
    head, (u, v) = RatingHead(8).double(), random(2, 30, 8)
    expected = head.expected(head.log_probabilities(u, v).exp())
    assert spearmanr(expected.detach(), torch.cosine_similarity(u, v)).statistic == pytest.approx(1)
    head = trained_head()
    u, v = random(2, 5, 3)
    torch.testing.assert_close(head.log_probabilities(u, v), head.log_probabilities(7 * v, u))
    torch.testing.assert_close(
        head.log_probabilities(u.bfloat16(), v.bfloat16()), head.float().log_probabilities(u.bfloat16(), v.bfloat16())
    )


def test_the_scale():
    head = RatingHead(2, num_levels=6, lowest=0, highest=5)
    assert head.ratings.tolist() == [0, 1, 2, 3, 4, 5]
    assert head.levels_of(torch.tensor([0, 0.49, 0.5, 4.4, 5.0])).tolist() == [0, 0, 1, 4, 5]
    assert RatingHead(2).levels_of(torch.tensor([0.0, 1.0, 0.3])).tolist() == [0, 8, 2]
    assert head.expected(torch.tensor([[0, 0, 0, 0, 0, 1.001]])).tolist() == [5.0]  # rounding leaves no scale
    for wrong in (5.1, -0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"scores must lie between 0 and 5, as the RatingHead says, got {wrong:g}"):
            head.levels_of(torch.tensor([1.0, wrong]))


@pytest.mark.parametrize(("levels", "lowest", "highest"), [(11, 0, 1), (6, 1, 5), (5, 0, 10), (21, -1, 1)])
def test_a_score_between_two_ratings_is_rounded_up_in_every_precision(levels, lowest, highest):
    """Labels come to the loss in fp32 and to the evaluator in float64."""
    head = RatingHead(2, levels, lowest, highest)
    between = [lowest + (level + 0.5) / (levels - 1) * (highest - lowest) for level in range(levels - 1)]
    for dtype in (torch.float32, torch.float64):
        assert head.levels_of(torch.tensor(between, dtype=dtype)).tolist() == [*range(1, levels)]


def scored_pairs(count=300, size=6):
    """Scores that the cosine does not show: those of the first dimension alone."""
    u, v = (torch.nn.functional.normalize(side, dim=1) for side in random(2, count, size))
    score = 1 - (u - v)[:, 0].abs() / 2
    return u, v, (score - score.min()) / (score.max() - score.min())


@pytest.mark.slow
@pytest.mark.parametrize("regions", [1, 3, 9])
def test_fit_learns_what_the_cosine_does_not_show(regions):
    u, v, scores = scored_pairs()
    head = RatingHead(6)
    before = head.expected(head.log_probabilities(u, v).exp())
    head.fit(u[:200].numpy(), v[:200].float(), scores[:200].tolist(), regions=regions, steps=150, learning_rate=0.05)
    log_p = head.log_probabilities(u, v).detach()
    after = head.expected(log_p.exp())[200:]
    assert spearmanr(after, scores[200:]).statistic > 0.85 > spearmanr(before.detach(), scores).statistic + 0.2
    likelihood = log_p[200:].gather(1, head.levels_of(scores[200:])[:, None]).mean()
    if regions > 1:  # order alone says nothing about the right ratings
        assert likelihood > -math.log(9) + 0.4


def test_weight_decay_is_for_w_alone():
    u, v, scores = scored_pairs(40)
    heads = {decay: RatingHead(6) for decay in (0.0, 20.0)}
    for decay, head in heads.items():
        head.fit(u, v, scores, steps=50, batch_size=20, weight_decay=decay)
    assert heads[20.0].rating_weight.norm() < 0.5 * heads[0.0].rating_weight.norm()
    assert heads[20.0].rating_scale > 3  # 20 · 0.01 · 50 steps would leave nothing of it


def test_fit_is_reproducible():
    u, v, scores = scored_pairs(40)
    heads = [RatingHead(6) for _ in range(3)]
    for head, seed in zip(heads, (0, 0, 1), strict=True):
        head.fit(u, v, scores, steps=3, batch_size=8, seed=seed)
    assert torch.equal(heads[0].rating_weight, heads[1].rating_weight)
    assert not torch.equal(heads[0].rating_weight, heads[2].rating_weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": [0.5] * 3}, "all scores are equal"),
        ({"scores": [0.5] * 2}, "3 pairs need as many scores"),
        ({"scores": [0.5, 2.0, 1.0]}, "between 0 and 1"),
        ({"batch_size": 1}, "batch_size must be a whole number of at least 2"),
        ({"batch_size": 2.5}, "batch_size must be a whole number"),
        ({"steps": 1.5}, "steps must be a whole number"),
        ({"regions": 10}, "regions must be a whole number from 1 to 9, got 10"),
        ({"u": np.zeros((3, 5))}, r"two times \(N, 4\), got \(3, 5\) and \(3, 4\)"),
    ],
)
def test_what_fit_refuses(change, message):
    arguments = {"u": np.zeros((3, 4)), "v": np.zeros((3, 4)), "scores": [0.0, 0.5, 1.0], "steps": 1} | change
    with pytest.raises(ValueError, match=message):
        RatingHead(4).fit(**arguments)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_levels": 1}, "num_levels must be a whole number of at least 2, got 1"),
        ({"num_levels": 2.5}, "num_levels must be a whole number of at least 2, got 2.5"),
        ({"num_levels": math.inf}, "num_levels must be a whole number of at least 2, got inf"),
        ({"lowest": 1, "highest": 1}, "highest must be above lowest, got 1 and 1"),
        ({"highest": math.inf}, "highest must be above lowest"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        RatingHead(4, **settings)


def test_saved_and_loaded_with_its_model(tmp_path):
    texts = ["mưa", "nắng", "mưa nắng"]
    plain = SentenceTransformer(modules=[BoW(["mưa", "nắng", "gió"])], device="cpu")
    head = RatingHead(3, num_levels=4, highest=5)
    head.rating_weight.data.normal_()
    model = SentenceTransformer(modules=[*plain, head], device="cpu")
    np.testing.assert_array_equal(model.encode(texts), plain.encode(texts))
    model.save(str(tmp_path))
    again = load(tmp_path, device="cpu")
    np.testing.assert_array_equal(again.encode(texts), plain.encode(texts))
    again.truncate_dim = 2  # of `encode` alone
    rated, before = again[-1].rate(again, texts, texts[::-1]), head.rate(model, texts, texts[::-1])
    assert torch.equal(rated.probabilities, before.probabilities) and rated.probabilities.shape == (3, 4)
    torch.testing.assert_close(rated.expected, rated.probabilities @ torch.tensor([0, 5 / 3, 10 / 3, 5]))
    assert [len(part) for part in head.rate(model, [], [])] == [0, 0]
    with pytest.raises(ValueError, match="every input needs a partner, got 1 and 2"):
        head.rate(model, texts[:1], texts[:2])


def test_added_to_a_model_it_takes_the_place_of_the_one_before(tmp_path):
    model = SentenceTransformer(modules=[BoW(["mưa", "nắng", "gió"])], device="cpu", truncate_dim=2)
    first = RatingHead.add_to(model, num_levels=4)
    second = RatingHead.add_to(model, num_levels=6, highest=5)
    assert [*model][1:] == [second] and first is not second
    assert (second.embedding_dimension, second.num_levels, second.highest) == (3, 6, 5)
    model.save(str(tmp_path))
    assert "model = st_vi.load(" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_training_puts_the_head_into_the_graph_of_the_vectors():
    """Without it, DDP with `find_unused_parameters`, the trainer's default, takes the head for unused and stops."""
    head = trained_head().float()
    vectors = torch.eye(3, requires_grad=True)
    found = head({"sentence_embedding": vectors})["sentence_embedding"]
    assert torch.equal(found, vectors)
    gradients = torch.autograd.grad(found.sum(), [vectors, *head.parameters()])
    assert gradients[0].all() and not any(gradient.any() for gradient in gradients[1:])
    head.eval()
    assert head({"sentence_embedding": vectors})["sentence_embedding"] is vectors


def test_one_pair_and_pairs_that_are_read_once(tiny_model):
    head = RatingHead(tiny_model.get_embedding_dimension())
    expected = head.rate(tiny_model, ["Trời mưa."], ["Mưa to."]).expected
    torch.testing.assert_close(head.rate(tiny_model, "Trời mưa.", "Mưa to.").expected, expected)
    torch.testing.assert_close(head.rate(tiny_model, iter(["Trời mưa."]), iter(["Mưa to."])).expected, expected)


@pytest.mark.parametrize(("factor", "steps", "message"), [(math.nan, 3, "hold NaN or inf"), (1.0, 0, "steps must be")])
def test_a_fit_that_could_not_be_one(factor, steps, message):
    head = RatingHead(3)
    before = head.rating_weight.clone()
    with pytest.raises(ValueError, match=message):
        head.fit(factor * random(2, 3, seed=1), random(2, 3, seed=2), [0.0, 1.0], steps=steps)
    torch.testing.assert_close(head.rating_weight, before)

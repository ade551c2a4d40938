"""`AttentionPooling` against the paper's formula, token by token, however the tokens are laid out."""

from __future__ import annotations

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer

from st_vi.modules import AttentionPooling
from st_vi.terms import InfoNCE, PairBatch
from tests.benchmarks.pooling import ByAutograd, gradient_of, padded_tokens, peaks
from tests.conftest import SENTENCES

LENGTHS = [5, 1, 3, 4]


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, 6, generator=generator) for n in LENGTHS]


def pooling(num_heads, **settings):
    pool = AttentionPooling(6, num_heads, **settings)
    torch.nn.init.normal_(pool.attention_context_vector, generator=torch.Generator().manual_seed(1))
    return pool


def padded(rows, side="right", width=5):
    tokens, mask = torch.full((len(rows), width, 6), 7.0), torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        where = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        tokens[i, where], mask[i, where] = row, 1
    return {"token_embeddings": tokens, "attention_mask": mask}


def flattened(rows):
    ends = torch.tensor([0, *map(len, rows)]).cumsum(0).to(torch.int32)
    return {"token_embeddings": torch.cat(rows)[None], "cu_seq_lens_q": ends}


def by_formula(pool, rows):
    """c = Σ a_i h_i with a = softmax(h_iᵀ v), one head after the other."""
    result = []
    for h in rows:
        heads = []
        for v in pool.attention_context_vector:
            u = torch.stack([(token * v).sum() for token in h])
            a = u.exp() / u.exp().sum()
            heads.append(sum(weight * token for weight, token in zip(a, h, strict=True)))
        result.append(torch.cat(heads))
    return torch.stack(result)


@pytest.mark.parametrize("num_heads", [1, 3])
@pytest.mark.parametrize("layout", ["right", "left", "flattened", "one by one"])
def test_equals_the_formula(rows, num_heads, layout):
    pool = pooling(num_heads)
    if layout == "one by one":
        actual = torch.cat([pool(padded([row], width=len(row)))["sentence_embedding"] for row in rows])
    else:
        features = flattened(rows) if layout == "flattened" else padded(rows, layout)
        actual = pool(features)["sentence_embedding"]
    expected = by_formula(pool, rows)
    assert actual.shape == (4, pool.get_embedding_dimension())
    torch.testing.assert_close(actual, expected)
    weights = torch.linspace(1, 2, actual.numel()).view_as(actual)
    (mine,) = torch.autograd.grad((actual * weights).sum(), [pool.attention_context_vector])
    (theirs,) = torch.autograd.grad((expected * weights).sum(), [pool.attention_context_vector])
    torch.testing.assert_close(mine, theirs)


def with_gradients(pool, features, tokens=None):
    """The embeddings, and the gradients of the tokens and of the context vectors under some gradient of theirs."""
    tokens = features["token_embeddings"].detach().requires_grad_() if tokens is None else tokens
    embedding = pool(features | {"token_embeddings": tokens})["sentence_embedding"]
    return embedding, *torch.autograd.grad(
        embedding, [tokens, pool.attention_context_vector], gradient_of(embedding), retain_graph=True
    )


@pytest.mark.parametrize("num_heads", [1, 3])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_gradients_equal_those_of_the_formula(rows, num_heads, side, dtype):
    pool, features = pooling(num_heads).to(dtype), padded(rows, side)
    features["token_embeddings"] = features["token_embeddings"].to(dtype)
    actual = with_gradients(pool, features)

    tokens = features["token_embeddings"].double().requires_grad_()
    mask = features["attention_mask"].bool()
    exact = pool.double()  # the same numbers, rounded to `dtype` before
    expected = by_formula(exact, [row[keep] for row, keep in zip(tokens, mask, strict=True)])
    expected = (
        expected,
        *torch.autograd.grad(
            expected, [tokens, exact.attention_context_vector], gradient_of(expected).to(dtype).double()
        ),
    )
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 1e-2}[dtype]
    for mine, theirs in zip(actual, expected, strict=True):
        assert mine.dtype == dtype
        assert (mine.double() - theirs).norm() < tolerance * theirs.norm()


@pytest.mark.parametrize("num_heads", [1, 3])
def test_first_and_second_derivatives(rows, num_heads):
    """By differences, with an input that is all padding, and with what needs a gradient one by one."""
    pool, features = pooling(num_heads).double(), padded(rows)
    features["attention_mask"][2] = 0

    def embed(tokens, v):
        return torch.func.functional_call(
            pool, {"attention_context_vector": v}, features | {"token_embeddings": tokens}
        )

    def pooled(tokens, v):
        return embed(tokens, v)["sentence_embedding"]

    tokens = features["token_embeddings"].double().requires_grad_()
    v = pool.attention_context_vector.detach().requires_grad_()
    for inputs in ((tokens, v), (tokens.detach(), v), (tokens, v.detach())):
        assert torch.autograd.gradcheck(pooled, inputs)
        assert torch.autograd.gradgradcheck(pooled, inputs)
    shown = embed(tokens, v)["attention_weights"]
    assert shown.dtype == torch.float32 and not shown.requires_grad
    assert not pooled(tokens.detach(), v.detach()).requires_grad


def test_padding_gets_no_gradient(rows):
    features = padded(rows, "left")
    _, gradient, _ = with_gradients(pooling(2), features)
    assert (gradient[features["attention_mask"] == 0] == 0).all()
    assert (gradient[features["attention_mask"] == 1] != 0).any(dim=-1).all()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled(rows, backend):
    torch.compiler.reset()
    pool, features = pooling(3), padded(rows)
    expected, actual = with_gradients(pool, features), with_gradients(torch.compile(pool, backend=backend), features)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("reentrant", [True, False])
def test_under_gradient_checkpointing(rows, reentrant):
    pool, features = pooling(3), padded(rows)

    def pooled(tokens):
        return pool(features | {"token_embeddings": tokens})["sentence_embedding"]

    def gradients(embed):
        pool.zero_grad()
        tokens = features["token_embeddings"].clone().requires_grad_()
        embed(tokens).square().sum().backward()
        return tokens.grad, pool.attention_context_vector.grad

    def recomputed(tokens):
        return torch.utils.checkpoint.checkpoint(pooled, tokens, use_reentrant=reentrant)

    torch.testing.assert_close(gradients(recomputed), gradients(pooled), rtol=0, atol=0)


@pytest.mark.parametrize("layout", ["right", "flattened"])
def test_autocast_changes_nothing(rows, layout):
    pool = pooling(2)
    features = padded(rows) if layout == "right" else flattened(rows)
    expected = with_gradients(pool, features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = features["token_embeddings"].detach().requires_grad_()
        embedding = pool(features | {"token_embeddings": tokens})["sentence_embedding"]
    actual = torch.autograd.grad(embedding, [tokens, pool.attention_context_vector], gradient_of(embedding))
    torch.testing.assert_close((embedding, *actual), expected, rtol=0, atol=0)

    half = tokens.detach().bfloat16().requires_grad_()  # as from a backbone under autocast, with fp32 weights here
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = with_gradients(pool, features, tokens=half)  # the backward under autocast, too
    assert [tensor.dtype for tensor in rounded] == [torch.bfloat16, torch.bfloat16, torch.float32]
    for mine, theirs in zip(rounded, expected, strict=True):
        assert (mine - theirs).norm() < 0.02 * theirs.norm()


@pytest.mark.parametrize("num_heads", [1, 2])
def test_weights_are_shown(rows, num_heads):
    pool = pooling(num_heads)
    weights = pool(padded(rows, "left"))["attention_weights"]
    assert weights.shape == ((4, 5) if num_heads == 1 else (4, 2, 5))
    assert not weights.requires_grad
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    assert (weights.reshape(4, -1, 5)[1, :, :4] == 0).all()  # its one token is the last
    flat = pool(flattened(rows))["attention_weights"]
    assert flat.shape == ((1, 13) if num_heads == 1 else (1, 2, 13))
    torch.testing.assert_close(flat[0, ..., 5:6].flatten(), torch.ones(num_heads))


@pytest.mark.parametrize("layout", ["right", "left", "flattened"])
def test_prompt_tokens_can_be_left_out(rows, layout):
    pool, rows = pooling(2, include_prompt=False), [rows[0], rows[2], rows[3]]
    features = flattened(rows) if layout == "flattened" else padded(rows, layout)
    for prompt_length in (2, torch.tensor([2]), torch.tensor([2, 2, 2])):
        actual = pool(features | {"prompt_length": prompt_length})["sentence_embedding"]
        torch.testing.assert_close(actual, by_formula(pool, [row[2:] for row in rows]))
    everything = pooling(2)(features | {"prompt_length": 2})["sentence_embedding"]
    torch.testing.assert_close(everything, by_formula(pool, rows))


def test_an_input_without_tokens_is_a_zero_vector_with_finite_gradients(rows):
    pool, features = pooling(2), padded(rows)
    features["attention_mask"][2] = 0
    features["token_embeddings"].requires_grad_()
    embedding = pool(features)["sentence_embedding"]
    assert (embedding[2] == 0).all() and embedding[1].abs().sum() > 0
    embedding.sum().backward()
    assert pool.attention_context_vector.grad.isfinite().all()
    assert (features["token_embeddings"].grad[2] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_in_a_loss_an_input_without_tokens_spoils_no_gradient(rows, dtype):
    """Its vector has no direction; as large a gradient as that of `normalize` would be infinite in fp16."""
    pool, features = pooling(1).to(dtype), padded(rows)
    features["attention_mask"][2] = 0
    tokens = features["token_embeddings"] = features["token_embeddings"].to(dtype).requires_grad_()
    anchors = pool(features)["sentence_embedding"]
    InfoNCE(temperature=1.0)(PairBatch(anchors, anchors.detach().flip(1))).sum().backward()
    for gradient in (tokens.grad, pool.attention_context_vector.grad):
        assert 0 < gradient.abs().max() < 100
    assert (tokens.grad[2] == 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", ["right", "flattened"])
def test_half_precision(rows, dtype, layout):
    pool = pooling(1)
    make = padded if layout == "right" else flattened
    features = make(rows)
    expected = pool(dict(features))["sentence_embedding"]
    half = pool.to(dtype)(features | {"token_embeddings": features["token_embeddings"].to(dtype)})
    assert half["sentence_embedding"].dtype == dtype and half["attention_weights"].dtype == torch.float32
    torch.testing.assert_close(half["sentence_embedding"].float(), expected, atol=0.05, rtol=0.05)


def test_no_temporary_of_the_size_of_the_tokens():
    """The forward makes weights and results, never weights times tokens; the backward one gradient of the tokens."""
    features = padded_tokens((8, 128, 64))
    size = features["token_embeddings"].nbytes
    in_forward, in_backward = peaks(AttentionPooling(64, num_heads=2), features)
    assert 0 < in_forward < size / 4
    assert size < in_backward < 1.5 * size
    assert peaks(ByAutograd(64, num_heads=2), features)[1] > 2.5 * size  # so the measure sees temporaries


def test_in_a_saved_model(tiny_base, tmp_path):
    model = SentenceTransformer(
        modules=[Transformer(str(tiny_base)), AttentionPooling(32, 2), Normalize()], device="cpu"
    )
    assert model.get_embedding_dimension() == 64
    model.save_pretrained(str(tmp_path))
    loaded = SentenceTransformer(str(tmp_path), trust_remote_code=True, device="cpu")
    assert (loaded.encode(SENTENCES) == model.encode(SENTENCES)).all()
    torch.testing.assert_close(
        torch.tensor(model.encode(SENTENCES)), torch.tensor(model.encode(SENTENCES, batch_size=1)), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("value", [0, 1.5])
@pytest.mark.parametrize("name", ["embedding_dimension", "num_heads"])
def test_sizes_are_whole_numbers(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1, got {value}"):
        AttentionPooling(**{"embedding_dimension": 4, name: value})

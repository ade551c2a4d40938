"""`AttentionPooling` against the paper's formula, token by token, however the tokens are laid out."""

from __future__ import annotations

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer

from st_vi.modules import AttentionPooling
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
    """The largest tensor that is made is the weights or the result, never weights times tokens."""
    pool, tokens = AttentionPooling(64, num_heads=2), torch.randn(8, 128, 64)
    sizes = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            is_view = isinstance(out, torch.Tensor) and out.untyped_storage().data_ptr() == tokens.data_ptr()
            if isinstance(out, torch.Tensor) and not is_view:
                sizes.append(out.numel())
            return out

    with torch.no_grad(), Watch():
        pool({"token_embeddings": tokens, "attention_mask": torch.ones(8, 128, dtype=torch.long)})
    assert max(sizes) < tokens.numel() / 4


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


def test_needs_a_head():
    with pytest.raises(ValueError, match="num_heads"):
        AttentionPooling(4, num_heads=0)

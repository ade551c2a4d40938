"""A stand-in for the package flash-attn on the CPU: transformers runs its own code for FlashAttention around it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from transformers import modeling_flash_attention_utils

CALLS = []
"""The lengths of the inputs of each call."""


def attend(q, k, v, *, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, causal, softmax_scale):
    """Each input by itself: (total, heads, width), and the first of each and the end of the last."""
    assert q.ndim == 3 and torch.equal(cu_seqlens_q, cu_seqlens_k) and cu_seqlens_q.dtype == torch.int32
    lengths = cu_seqlens_q.diff().tolist()
    assert sum(lengths) == len(q) and max(lengths) == max_seqlen_q == max_seqlen_k
    CALLS.append(lengths)
    parts = [[x.transpose(0, 1) for x in values.split(lengths)] for values in (q, k, v)]
    return torch.cat(
        [
            F.scaled_dot_product_attention(*qkv, is_causal=causal, scale=softmax_scale, enable_gqa=True).transpose(0, 1)
            for qkv in zip(*parts, strict=True)
        ]
    )


def _padded(*_, **__):
    raise AssertionError("padded inputs are none of this stand-in's business")


def use_flash_attention(model, monkeypatch):
    """Make a Hugging Face model use the stand-in."""

    def kwargs(*, is_causal, softmax_scale, max_seqlen_q, max_seqlen_k, **_):
        lengths = {"max_seqlen_q": max_seqlen_q, "max_seqlen_k": max_seqlen_k}
        return {"causal": is_causal, "softmax_scale": softmax_scale} | lengths

    # Newer ones than 5.5 have one more, for the arguments of paged attention.
    paged = hasattr(modeling_flash_attention_utils, "_process_with_kvcache_kwargs_fn")
    monkeypatch.setattr(
        "transformers.modeling_flash_attention_utils.lazy_import_flash_attention",
        lambda *_, **__: ((_padded, attend, _padded, _padded, _padded), (kwargs, kwargs) if paged else kwargs),
    )
    for module in model.modules():
        if hasattr(module, "config"):
            monkeypatch.setattr(module.config, "_attn_implementation", "flash_attention_2")
    CALLS.clear()

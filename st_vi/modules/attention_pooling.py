"""viPolyQwen's attention pooling, with a learned context vector."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from st_vi.checks import check_whole
from st_vi.modules.saved_module import SavedModule


def attention_weights(tokens: Tensor, v: Tensor, belongs: Tensor) -> Tensor:
    """The weights a = softmax(h_iᵀ v) of each head, in fp32 (float64 for float64 inputs).

    Args:
        tokens: h, (B, N, D).
        v: Context vectors, (H, D).
        belongs: Mask of the tokens to pool, broadcast to (B, H, N). If it is empty, all weights are zero.
    """
    scores = (tokens @ v.T).mT
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    return scores.masked_fill(~belongs, torch.finfo(scores.dtype).min).softmax(dim=-1) * belongs


def pooled_tokens(features: dict[str, Any], include_prompt: bool = True) -> Tensor:
    """Mask (B, N) of the tokens to pool for each input.

    Args:
        features: As for `AttentionPooling`.
        include_prompt: Whether to pool the tokens of the prompt.
    """
    tokens, prompt_length = features["token_embeddings"], 0
    if not include_prompt and "prompt_length" in features:
        # An int in `encode`; from a data loader, a tensor with one value, or the same value for every row.
        prompt_length = int(torch.as_tensor(features["prompt_length"]).flatten()[0])
    position = torch.arange(tokens.shape[1], device=tokens.device)
    if "cu_seq_lens_q" in features:
        ends = features["cu_seq_lens_q"][1:, None]
        starts = features["cu_seq_lens_q"][:-1, None] + prompt_length
        return (starts <= position) & (position < ends)
    mask = features.get("attention_mask")
    if mask is None or mask.shape[-1] != tokens.shape[1]:  # as in stock pooling: nothing is padding
        mask = tokens.new_ones(tokens.shape[:2])
    mask = mask.bool()
    if prompt_length:  # the first tokens behind the padding
        mask = mask & (mask.int().argmax(dim=1, keepdim=True) + prompt_length <= position)
    return mask


class WeightedMean(torch.autograd.Function):
    """c = Σ_i a_i h_i of each head, and a. With g the gradient of c, the gradients of h and v are

        ∂h_i = a_i g + du_i v,   ∂v = Σ_i du_i h_i,   du_i = a_i (g·h_i − Σ_j a_j g·h_j)

    where du is the gradient of the scores u. Autograd would write a_i g and du_i v, each as large as the tokens, and
    add them. Here they are one product, [a du] (N, 2H) by [g v] (2H, D), written once.
    """

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, v: Tensor, belongs: Tensor) -> tuple[Tensor, Tensor]:
        """From h (B, N, D), v (H, D) and `belongs` (B, 1, N) to c (B, H, D) and, without gradient, a (B, H, N)."""
        a = attention_weights(tokens, v, belongs)
        ctx.save_for_backward(tokens, v, belongs, a)
        ctx.mark_non_differentiable(a)
        return a.to(tokens.dtype) @ tokens, a

    @staticmethod
    def backward(ctx: Any, g: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """The gradients of h and v, from that of c."""
        h, v, belongs, a = ctx.saved_tensors
        if torch.is_grad_enabled():  # for second derivatives: the saved a has no graph
            a = attention_weights(h, v, belongs)
        da = (g @ h.mT).to(a.dtype)
        du = (a * (da - (a * da).sum(dim=-1, keepdim=True))).to(h.dtype)
        dh = dv = None
        if ctx.needs_input_grad[0]:
            dh = torch.cat([a.to(h.dtype), du], dim=1).mT @ torch.cat([g, v.expand(len(g), -1, -1)], dim=1)
        if ctx.needs_input_grad[1]:
            dv = (du @ h).sum(dim=0)
        return dh, dv, None


class AttentionPooling(SavedModule):
    """Weighted mean of the token embeddings h_i, with weights from a learned context vector v:

        u_i = h_iᵀ v,   a = softmax(u) over the tokens that are not padding,   c = Σ_i a_i h_i

    Source: viPolyQwen, Section "Attention pooling"; v ~ N(0, 0.02²), without the 1/√D of attention. Each of several
    heads has its own vector, and the results are concatenated (not in the paper).

    Reads ``token_embeddings`` (B, N, D) and ``attention_mask`` (B, N), padded on either side; or flattened inputs,
    (1, total, D) with ``cu_seq_lens_q`` (B+1,). Writes ``sentence_embedding`` (B, num_heads·D) and, detached and
    in fp32, ``attention_weights``: (B, N) for one head, (B, num_heads, N) for more, with B = 1 and N = total for
    flattened inputs. The softmax is in fp32. An input without tokens gives a zero vector. Autocast has no effect: as
    in stock mean pooling, the embedding has the dtype of the tokens.

    Args:
        embedding_dimension: D.
        num_heads: Number of context vectors.
        include_prompt: Whether to pool the tokens of the prompt (stock ``prompt_length``).

    Raises:
        ValueError: `embedding_dimension` or `num_heads` is no positive integer.

    Example:
        >>> import torch
        >>> from st_vi import AttentionPooling
        >>> pool = AttentionPooling(2)
        >>> _ = pool.attention_context_vector.data.copy_(torch.tensor([[1.0, 0.0]]))
        >>> tokens = torch.tensor([[[0.0, 1.0], [0.0, 3.0], [9.0, 9.0]]])
        >>> features = pool({"token_embeddings": tokens, "attention_mask": torch.tensor([[1, 1, 0]])})
        >>> features["attention_weights"], features["sentence_embedding"]
        (tensor([[0.5000, 0.5000, 0.0000]]), tensor([[0., 2.]], grad_fn=...))
    """

    config_keys: list[str] = ["embedding_dimension", "num_heads", "include_prompt"]  # noqa: RUF012

    def __init__(self, embedding_dimension: int, num_heads: int = 1, include_prompt: bool = True) -> None:
        super().__init__()
        check_whole("embedding_dimension", embedding_dimension)
        check_whole("num_heads", num_heads)
        self.embedding_dimension = embedding_dimension
        self.num_heads = num_heads
        self.include_prompt = include_prompt
        self.attention_context_vector = nn.Parameter(torch.empty(num_heads, embedding_dimension).normal_(std=0.02))

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Pool the tokens of each input; see the class."""
        tokens = features["token_embeddings"]
        belongs = pooled_tokens(features, self.include_prompt).unsqueeze(1)  # (B, 1, N): which tokens are whose
        v = self.attention_context_vector.to(tokens.dtype)
        # Autocast would copy all tokens to a lower precision.
        with torch.autocast(tokens.device.type, enabled=False):
            if "cu_seq_lens_q" in features:
                # One product for all inputs: the rows of one matrix, zero at the tokens of other inputs.
                weights = attention_weights(tokens, v, belongs)
                pooled = (weights.to(tokens.dtype).flatten(0, 1) @ tokens[0]).unflatten(0, weights.shape[:2])
                weights = weights.sum(dim=0, keepdim=True)  # each token belongs to one input
            else:
                pooled, weights = WeightedMean.apply(tokens, v, belongs)
        features["sentence_embedding"] = pooled.flatten(1)
        weights = weights.detach().float()
        features["attention_weights"] = weights.squeeze(1) if self.num_heads == 1 else weights
        return features

    def get_embedding_dimension(self) -> int:
        """Size of the embeddings, num_heads·D."""
        return self.num_heads * self.embedding_dimension

"""viPolyQwen's pooling: a learned vector asks every token how much it matters."""

from __future__ import annotations

from typing import Any

import torch
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor, nn

from st_vi.modules.saved_module import SavedModule


class AttentionPooling(SavedModule):
    """Weighted mean of the token embeddings h_i, with weights from a learned context vector v:

        u_i = h_iᵀ v,   a = softmax(u) over the tokens that are not padding,   c = Σ_i a_i h_i

    Source: viPolyQwen, Section "Attention pooling"; v ~ N(0, 0.02²), without the 1/√D of attention. Several heads
    have a vector each, and their results are concatenated (this project's own).

    Reads ``token_embeddings`` (B, N, D) and ``attention_mask`` (B, N), padded on either side; or flattened inputs,
    (1, total, D) with ``cu_seq_lens_q`` (B+1,). Writes ``sentence_embedding`` (B, num_heads·D) and, detached and
    in fp32, ``attention_weights``: (B, N) for one head, (B, num_heads, N) for more, with B = 1 and N = total for
    flattened inputs. The softmax is in fp32. An input without a single token gives a zero vector.

    Args:
        embedding_dimension: D.
        num_heads: Number of context vectors.
        include_prompt: Whether the tokens of the prompt (stock ``prompt_length``) take part.

    Raises:
        ValueError: `num_heads` is below 1.

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
        if num_heads < 1:
            raise ValueError(f"num_heads must be at least 1, got {num_heads}")
        self.embedding_dimension = embedding_dimension
        self.num_heads = num_heads
        self.include_prompt = include_prompt
        self.attention_context_vector = nn.Parameter(torch.empty(num_heads, embedding_dimension).normal_(std=0.02))

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Pool the tokens of every input; see the class."""
        tokens = features["token_embeddings"]
        belongs = self._membership(features).unsqueeze(1)  # (B, 1, N): which tokens are whose
        scores = (tokens @ self.attention_context_vector.to(tokens.dtype).T).float().mT  # (B or 1, H, N)
        weights = scores.masked_fill(~belongs, torch.finfo(scores.dtype).min).softmax(dim=-1) * belongs
        if "cu_seq_lens_q" in features:
            # One product for all inputs: their weights are the rows of one matrix, zero at the tokens of others.
            pooled = (weights.to(tokens.dtype).flatten(0, 1) @ tokens[0]).unflatten(0, weights.shape[:2])
            weights = weights.sum(dim=0, keepdim=True)  # each token belongs to one input
        else:
            pooled = weights.to(tokens.dtype) @ tokens
        features["sentence_embedding"] = pooled.flatten(1)
        features["attention_weights"] = weights.detach().squeeze(1) if self.num_heads == 1 else weights.detach()
        return features

    def _membership(self, features: dict[str, Any]) -> Tensor:
        """Which tokens are pooled for which input, (B, N) bool."""
        tokens, prompt_length = features["token_embeddings"], 0
        if not self.include_prompt and "prompt_length" in features:
            # An int when encoding; from a data loader a tensor that holds the same value once or for every row.
            prompt_length = int(torch.as_tensor(features["prompt_length"]).flatten()[0])
        if "cu_seq_lens_q" in features:
            ends = features["cu_seq_lens_q"][1:, None]
            starts = features["cu_seq_lens_q"][:-1, None] + prompt_length
            position = torch.arange(tokens.shape[1], device=tokens.device)
            return (starts <= position) & (position < ends)
        mask = features.get("attention_mask")
        if mask is None or mask.shape[-1] != tokens.shape[1]:  # as in stock pooling: nothing is padding
            mask = tokens.new_ones(tokens.shape[:2], dtype=torch.long)
        if prompt_length:
            mask = Pooling._exclude_prompt_from_mask(mask, prompt_length)
        return mask.bool()

    def get_embedding_dimension(self) -> int:
        """Size of the embeddings, num_heads·D."""
        return self.num_heads * self.embedding_dimension

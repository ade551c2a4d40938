"""VladVA: next-token prediction of long captions, beside a contrastive loss on short ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses.matryoshka import CachedLossDecorator
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

from st_vi.checks import check_whole
from st_vi.losses.columns import check_columns, listed
from st_vi.losses.embed import reject_lazy
from st_vi.losses.grad_cache import GradCache
from st_vi.losses.settings import Settings
from st_vi.stock.training import Read, uncompiled

IGNORED = -100
MAX_LOGITS_BYTES = 2**28


class NextTokenLoss(Settings, nn.Module):
    """Next-token prediction of the positive given the anchor, by the backbone of a `Qwen2VLTransformer`.

    Each row is read as one sequence, the tokens x_t of the anchor and then those of the positive. h_t is the last
    hidden state at x_t, o_v the input embedding of token v, which is also its output vector (tied), and Y all tokens of
    the positives in the batch:

        p_t(v) = e^{h_t · o_v} / Σ_u e^{h_t · o_u}
        L = −w/|Y| Σ_{x_t ∈ Y} log p_{t − 1}(x_t)

    The attention of the language model is causal, so h_t knows the anchor and the tokens up to t, and nothing else. The
    anchor may be an image, a text or both; its own tokens are not predicted. The plain template has no token for the
    end of a text, so none is learned.

    Source: VladVA (Ouali et al. 2025, arXiv 2412.04378): a contrastive loss on short captions and next-token prediction
    on long ones, together. *Inferred*: w, the mean over all tokens of a batch, and that the image alone comes before
    the caption, without an instruction.

    It is a loss beside `DLELoss` and no term of it: a term sees one vector per input, and this loss needs the hidden
    states of anchor and positive read as one sequence, a forward pass of its own. The stock trainer combines losses:
    one dataset and one loss for each kind of caption, with the same columns and the same `MixedTaskCollator`. With
    ``multi_dataset_batch_sampler="round_robin"`` and two accumulation steps, each optimizer step sees a batch of either
    kind. Rows are independent of each other: a larger batch has more of them, and no negatives.

    With several processes, the gradient is the mean over the processes. Models in shards (FSDP, ZeRO-3) cannot be
    trained: the output matrix is read outside of their forward pass.

    Args:
        model: The model to train; its first module is a `Qwen2VLTransformer` with the plain template.
        weight: w.
        allow_untied: Use the input embeddings as output vectors where the configuration of the base model does not say
            that they are, as in Qwen2-VL-7B, whose own output matrix is not loaded, or in a small model of your own.
        max_matrix_bytes: Largest matrix of logits (tokens × vocabulary) in memory, in bytes; the backward pass computes
            it again.

    Inputs: Columns anchor and positive; the positive is a text. Labels are ignored.

    Returns:
        L, a scalar; 0 if there is no token to predict.

    Raises:
        ValueError: The first module of the model has no tokens to predict, or another template than "plain"; its
            embeddings are not tied; an argument is out of range; or there are other columns.

    Example:
        >>> from st_vi.losses import DLELoss, NextTokenLoss
        >>> from st_vi import build_vipolyqwen
        >>> model = build_vipolyqwen("Qwen/Qwen2-VL-2B-Instruct")  # doctest: +SKIP
        >>> loss = {"short": DLELoss(model), "long": NextTokenLoss(model, weight=0.5)}  # doctest: +SKIP
        >>> rows = {"short": ..., "long": ...}  # a DatasetDict with these names, for train_vipolyqwen
    """

    model: Any

    def __init__(
        self,
        model: SentenceTransformer,
        weight: float = 1.0,
        allow_untied: bool = False,
        max_matrix_bytes: int = MAX_LOGITS_BYTES,
    ) -> None:
        super().__init__(model)
        if not math.isfinite(weight):
            raise ValueError(f"weight must be finite, got {weight}")
        check_whole("max_matrix_bytes", max_matrix_bytes)
        self.weight = weight
        self.allow_untied = allow_untied
        self.max_matrix_bytes: Any = max_matrix_bytes
        backbone = self._backbone()
        if getattr(backbone, "template", None) != "plain":
            raise ValueError("NextTokenLoss needs a model whose first module is a Qwen2VLTransformer(template='plain')")
        if not (allow_untied or backbone.model.config.tie_word_embeddings):
            raise ValueError(
                "the output matrix of this base model is not its input embedding (tie_word_embeddings), and it is not "
                "loaded: allow_untied=True uses the input embedding anyway"
            )

    def forward(self, sentence_features: Iterable[Mapping[str, Any]], labels: Tensor | None = None) -> Tensor:
        """The loss of a batch."""
        read = self._read(self.model(self._joined(sentence_features)))
        return self.compute_loss_from_embeddings([read["sentence_embedding"]])

    def compute_loss_from_embeddings(
        self, embeddings: list[Tensor], labels: Tensor | None = None, ids: list[Tensor] | None = None
    ) -> Tensor:
        """The loss of rows that were read.

        Args:
            embeddings: One column (B, 2), of each row the sum of −log p over its tokens, and their number.
            labels: Not used.
            ids: Not used.
        """
        check_columns(embeddings, None)
        losses, counts = embeddings[0].sum(dim=0)
        return self.weight * losses / counts.detach().clamp(min=1)

    def get_config_dict(self) -> dict[str, Any]:
        """Settings for the model card."""
        return {
            "weight": self.weight,
            "allow_untied": self.allow_untied,
            "max_matrix_bytes": self.max_matrix_bytes,
        }

    def _backbone(self) -> Any:
        model = uncompiled(self.model)
        return getattr(model, "module", model)[0]  # inside DDP

    def _joined(self, sentence_features: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        columns = listed(sentence_features)
        reject_lazy(columns, self)
        if len(columns) != 2:
            raise ValueError(f"NextTokenLoss reads an anchor and a positive, got {len(columns)} column(s)")
        return joined(columns[0], columns[1], pad=self._backbone().tokenizer.pad_token_id)

    def _read(self, features: Mapping[str, Any]) -> dict[str, Tensor]:
        """Of each row the sum of −log p over its tokens, and their number, (B, 2), where GradCache looks for it."""
        targets = features["targets"]
        row, place = (targets[:, 1:] != IGNORED).nonzero(as_tuple=True)
        states, wanted = features["token_embeddings"][row, place], targets[row, place + 1]
        matrix = self._backbone().model.get_input_embeddings().weight
        at_once = max(1, self.max_matrix_bytes // (4 * len(matrix)))
        losses = [
            checkpoint(_losses, some, matrix, tokens, use_reentrant=False)
            for some, tokens in zip(states.split(at_once), wanted.split(at_once), strict=True)
        ]
        # All weights get a gradient, as DDP expects, if only one of 0: pooling and head have no part in this loss.
        zero = features["sentence_embedding"].sum(dim=1) * 0.0
        totals = zero.to(losses[0].dtype).index_add(0, row, torch.cat(losses))
        return {"sentence_embedding": torch.stack([totals, row.bincount(minlength=len(targets)).to(totals)], dim=1)}


class CachedNextTokenLoss(GradCache, NextTokenLoss):
    """`NextTokenLoss` with the memory of a mini-batch: same values and gradients, but each row is read twice.

    For a trainer whose other loss is a cached one with large batches: all datasets of a trainer have one batch size.

    Source: GradCache (Gao et al. 2021, arXiv 2101.06983), as implemented in stock.

    Args:
        model: The model to train; the arguments not described here are those of `NextTokenLoss`.
        mini_batch_size: Rows per mini-batch.
        mini_batch_num_tokens: Alternatively, tokens per mini-batch including image tokens, without padding.
        show_progress_bar: Show the progress over the mini-batches.

    Inputs:
        As for `NextTokenLoss`.

    Raises:
        ValueError: The mini-batch size is not positive, the loss is in a `MatryoshkaLoss`, or as for `NextTokenLoss`.

    Example:
        >>> from st_vi import build_vipolyqwen
        >>> from st_vi.losses import CachedDLELoss, CachedNextTokenLoss
        >>> model = build_vipolyqwen("Qwen/Qwen2-VL-2B-Instruct")  # doctest: +SKIP
        >>> loss = {"short": CachedDLELoss(model), "long": CachedNextTokenLoss(model)}  # doctest: +SKIP
    """

    embed_once = False  # no two rows are read together

    def __init__(
        self,
        model: SentenceTransformer,
        weight: float = 1.0,
        allow_untied: bool = False,
        max_matrix_bytes: int = MAX_LOGITS_BYTES,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        show_progress_bar: bool = False,
    ) -> None:
        super().__init__(model, weight=weight, allow_untied=allow_untied, max_matrix_bytes=max_matrix_bytes)
        self._set_mini_batches(mini_batch_size, mini_batch_num_tokens, show_progress_bar, max_matrix_bytes)

    def forward(self, sentence_features: Iterable[Mapping[str, Any]], labels: Tensor | None = None) -> Tensor:
        """The loss of a batch; its backward pass reads the rows again."""
        if isinstance(self.calculate_loss, CachedLossDecorator):  # it would cut what is read of a row, (B, 2), too
            raise ValueError("CachedNextTokenLoss has no vectors that MatryoshkaLoss could cut: wrap the other losses")
        return self._cached([self._joined(sentence_features)], labels)[0]

    def _embedder(self) -> Any:
        return Read(self.model, self._read)


def joined(anchor: Mapping[str, Any], positive: Mapping[str, Any], pad: int) -> dict[str, Any]:
    """The features of anchor and positive as one sequence per row, padded on the right.

    Args:
        anchor: ``input_ids`` and ``attention_mask`` (B, N), padded on either side; and images or videos.
        positive: The same, (B, M), for texts.
        pad: Padding token.

    Returns:
        The features of the anchor with the tokens of both, and ``targets`` (B, N + M at most): the tokens of the
        positive at their places, and -100 elsewhere.

    Raises:
        ValueError: The positive has images or videos, or the columns are not padded.

    Example:
        >>> import torch
        >>> from st_vi.losses.next_token import joined
        >>> anchor = {"input_ids": torch.tensor([[5, 6], [7, 0]]), "attention_mask": torch.tensor([[1, 1], [1, 0]])}
        >>> positive = {"input_ids": torch.tensor([[8], [9]]), "attention_mask": torch.tensor([[1], [1]])}
        >>> both = joined(anchor, positive, pad=0)
        >>> both["input_ids"].tolist(), both["targets"].tolist()
        ([[5, 6, 8], [7, 9, 0]], [[-100, -100, 8], [-100, 9, -100]])
    """
    if any(positive.get(key) is not None for key in ("pixel_values", "pixel_values_videos")):
        raise ValueError("NextTokenLoss predicts texts, but a positive of this batch has an image or a video")
    if any(column.get("attention_mask") is None for column in (anchor, positive)):
        raise ValueError("NextTokenLoss needs padded columns with an attention_mask")
    masks = [column["attention_mask"].bool() for column in (anchor, positive)]

    def join(first: Tensor, second: Tensor, fill: int) -> Tensor:
        parts = zip(first, masks[0], second, masks[1], strict=True)
        rows = [torch.cat([a[of_a], b[of_b]]) for a, of_a, b, of_b in parts]
        return pad_sequence(rows, batch_first=True, padding_value=fill)

    features = dict(anchor)
    for key in ("input_ids", "attention_mask", "mm_token_type_ids"):
        if anchor.get(key) is not None:
            features[key] = join(anchor[key], positive[key], pad if key == "input_ids" else 0)
    ignored = torch.full_like(anchor["input_ids"], IGNORED)
    return features | {"targets": join(ignored, positive["input_ids"], IGNORED)}


def _losses(states: Tensor, matrix: Tensor, tokens: Tensor) -> Tensor:
    """−log p of each token, in at least fp32: (n, D), (V, D), (n,) → (n,)."""
    logits = states.to(matrix.dtype) @ matrix.T
    return F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), tokens, reduction="none")

"""ViCLSR's objective: supervised contrastive learning on natural-language inference."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from st_vi.losses.blocks import term_sums
from st_vi.losses.columns import check_columns, gather_columns
from st_vi.losses.embed import embedded
from st_vi.losses.settings import Settings
from st_vi.terms import InfoNCE, PairBatch
from st_vi.terms.pairs import SameAnchor


class SupConNLILoss(Settings, nn.Module):
    """Supervised SimCSE on (anchor, positive[, negative, …]) rows, for data in which texts repeat.

    The objective is the term `InfoNCE` over in-batch positives and hard negatives. If no text repeats, it equals the
    stock ``MultipleNegativesRankingLoss(scale=1 / temperature)``. In NLI data texts do repeat: a premise has several
    hypotheses, and a hypothesis several premises. `PairBatch` defines what then counts as a negative. Texts are
    compared by token ids, so texts that are equal after truncation count as equal.

    Source: ViCLSR (arXiv 2603.21084): entailments are positives, contradictions hard negatives, temperature 0.05 is
    best; its equation is not published. *Inferred*: supervised SimCSE (arXiv 2104.08821, Eq. 5), from anchors to
    positives only, with w = 0. `same_anchor` and `mask_duplicates` are original.

    Args:
        model: The model to train.
        temperature: τ > 0.
        hard_negative_weight: w, added to the logits of the row's own hard negatives (SimCSE's α is e^w).
        same_anchor: A positive of another row with the same anchor is a "positive" too, is left out ("mask"), or is a
            "negative".
        mask_duplicates: Leave out candidates with the text of the row's own anchor or positive.
        symmetric: Average with the same loss from positives to anchors.
        gather_across_devices: Use the rows of all devices as candidates.
        embed_once: Embed every distinct input of the batch once (`embed_distinct`), which is faster and gives the same
            values and gradients. False embeds column by column, as in stock.

    Inputs: Columns anchor, positive and n ≥ 0 negatives, in this order: the stock trainer goes by column order, and
    `st_vi.data.check_triplets` sorts the columns. An optional label column of floats has the weight of each row in the
        mean: `check_triplets` creates it from the column `weight`, in which `nli_to_triplets` gives weak positives 0.5.

    Raises:
        ValueError: There are fewer than two columns, shapes do not match, or labels are not one finite, non-negative
            float per row.

    Example:
        >>> import torch
        >>> from st_vi import SupConNLILoss
        >>> loss = SupConNLILoss(model=None, temperature=1.0)
        >>> anchors, positives, negatives = torch.eye(4)[:2], torch.eye(4)[:2], torch.eye(4)[2:]
        >>> loss.compute_loss_from_embeddings([anchors, positives, negatives])  # −log(e / (e + 3))
        tensor(0.7437)
    """

    max_matrix_bytes: int | None = None  # the cached loss sets it

    def __init__(
        self,
        model: SentenceTransformer,
        temperature: float = 0.05,
        hard_negative_weight: float = 0.0,
        same_anchor: SameAnchor = "positive",
        mask_duplicates: bool = True,
        symmetric: bool = False,
        gather_across_devices: bool = False,
        embed_once: bool = True,
    ) -> None:
        super().__init__(model)
        self.term = InfoNCE(temperature=temperature, symmetric=symmetric, hard_negative_weight=hard_negative_weight)
        self.same_anchor = same_anchor
        self.mask_duplicates = mask_duplicates
        self.gather_across_devices = gather_across_devices
        self.embed_once = embed_once

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """Embed the columns and return the mean loss of the rows."""
        embeddings, ids = embedded(self, sentence_features)
        return self.compute_loss_from_embeddings(embeddings, labels, ids)

    def compute_loss_from_embeddings(
        self, embeddings: list[Tensor], labels: Tensor | None = None, ids: list[Tensor] | None = None
    ) -> Tensor:
        """Mean loss of the rows of this device.

        Args:
            embeddings: Anchors, positives and negatives, (B, D) each.
            labels: Weight of each row, (B,), finite and non-negative; None for equal weights. If all are 0, the loss is
                0.
            ids: (B,) int for each column, equal if texts are equal (`content_ids`); None if all texts are distinct.
        """
        if len(embeddings) < 2:
            raise ValueError(f"SupConNLILoss needs an anchor and a positive column, got {len(embeddings)} column(s)")
        check_columns(embeddings, ids)
        weights = _row_weights(labels, embeddings[0])
        own_rows = None
        if self.gather_across_devices:
            embeddings, own_rows = gather_columns(embeddings)
            ids = ids and gather_columns(ids)[0]
        anchors, positives, *negatives = embeddings
        pairs = PairBatch(
            anchors,
            positives,
            negatives=torch.stack(negatives) if negatives else None,
            anchor_ids=ids[0] if ids else None,
            candidate_ids=torch.cat(ids[1:]) if ids else None,
            own_rows=own_rows,
            same_anchor=self.same_anchor,
            mask_duplicates=self.mask_duplicates,
        )
        return term_sums({"info_nce": self.term}, pairs, weights, self.max_matrix_bytes)[0]

    def get_config_dict(self) -> dict[str, Any]:
        """Settings for the model card."""
        return {
            "temperature": self.term.temperature,
            "hard_negative_weight": self.term.hard_negative_weight,
            "same_anchor": self.same_anchor,
            "mask_duplicates": self.mask_duplicates,
            "symmetric": self.term.symmetric,
            "gather_across_devices": self.gather_across_devices,
            "embed_once": self.embed_once,
        }

    @property
    def citation(self) -> str:
        """BibTeX of the methods, for the model card."""
        return """
@inproceedings{gao2021simcse,
    title = "{SimCSE}: Simple Contrastive Learning of Sentence Embeddings",
    author = "Gao, Tianyu and Yao, Xingcheng and Chen, Danqi",
    booktitle = "Proceedings of EMNLP",
    year = "2021",
    url = "https://arxiv.org/abs/2104.08821",
}

@misc{viclsr,
    title = "ViCLSR",
    eprint = "2603.21084",
    archivePrefix = "arXiv",
    url = "https://arxiv.org/abs/2603.21084",
}
"""


def _row_weights(labels: Tensor | None, anchors: Tensor) -> Tensor:
    """The share of each row in the mean, (B,)."""
    rows, dtype = len(anchors), torch.promote_types(anchors.dtype, torch.float32)
    if labels is None:
        return torch.full((rows,), 1 / rows, dtype=dtype, device=anchors.device)
    if not labels.is_floating_point() or labels.shape != (rows,):
        raise ValueError(
            "SupConNLILoss uses the label column as row weights: expected one float a row, got "
            f"{labels.dtype} of shape {tuple(labels.shape)}. Remove the column if it is something else"
        )
    labels = labels.to(torch.promote_types(labels.dtype, dtype))
    total = labels.sum()
    if not ((labels >= 0).all() & total.isfinite()):
        raise ValueError(f"the weights of the rows must be finite and not negative, got {labels.tolist()}")
    return labels / total.clamp(min=torch.finfo(labels.dtype).tiny)

"""The region loss of ordinal ratings, for rows with scores."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from st_vi.losses.columns import check_columns
from st_vi.losses.embed import embedded
from st_vi.losses.settings import Settings
from st_vi.stock.training import uncompiled
from st_vi.terms.ratings import rating_head, region_losses, regions_of


class RatingLoss(Settings, nn.Module):
    """Trains a model and its `st_vi.modules.RatingHead` on pairs of inputs with scores.

    The head gives row i the probabilities p_i of the levels 1 … K. Of two rows with s_i > s_j, i should be rated
    higher; if ratings are independent of each other, its probability is a sum below the diagonal of p_i p_jᵀ:

        P_ij = Σ_{(a, b) ∈ F_ij} p_i(a) p_j(b),   F_ij = {(a, b): lo_j ≤ b < a ≤ hi_i}
        L    = − 1/|S| Σ_{(i,j) ∈ S} log P_ij,   S = {(i, j): s_j < s_i, lo_j < hi_i}

    The K levels are cut into `regions` of equal size, such as bad, normal and good; lo_j and hi_i are the lowest level
    of the region of s_j and the highest one of that of s_i. With one region, only the order counts, and nothing says
    what rating is right. With more, the probability that lies beyond the region of a row is lost: it anchors ratings to
    scores. With K regions of one level, neighbours have to be rated exactly right.

    Every pair of rows of the batch is compared, so larger batches make more of the same rows. Rows without a partner
    have no loss; a batch without pairs gives 0.

    Source: arXiv 2602.12660, where rows are answers to one prompt, preferred by people: the sum below the diagonal is
    its Ordinal Probabilistic Reward Model (K = 9), and cutting it by quality labels in three regions is its Region
    Flooding Tuning. *Inferred*: the exact form of F. By accounts of the paper, no gradient tells the order of levels in
    the rectangle of two different regions, so it is flooded to the triangle below the diagonal. *Ours*: the preferences
    and labels are those of the scores.

    Args:
        model: The model to train, with a `RatingHead` among its modules.
        regions: From 1 to K.
        flood: False keeps to the cells of F_ij whose a is in the region of row i and whose b is in that of row j. With
            K regions, the loss is then the likelihood of the levels, −log p_i(l_i) − log p_j(l_j).
        embed_once: Embed every distinct input of the batch once, as in `SupConNLILoss`.

    Inputs: Two columns, and a label column of numbers: scores from `lowest` to `highest` of the head.

    Raises:
        ValueError: The model has no `RatingHead` or more than one, `regions` is out of range, there are not two
            columns, or scores are missing, out of range or not one number a row.

    Example:
        >>> import torch
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from st_vi.losses import RatingLoss
        >>> from st_vi.modules import RatingHead
        >>> model = SentenceTransformer(modules=[BoW(["mưa", "nắng"]), RatingHead(2)], device="cpu")
        >>> vectors = torch.eye(2)
        >>> scores = torch.tensor([1.0, 0.0])  # of equal vectors, and of orthogonal ones
        >>> RatingLoss(model).compute_loss_from_embeddings([vectors, vectors[[0, 0]]], scores)
        tensor(0.0251, grad_fn=...)
    """

    def __init__(
        self, model: SentenceTransformer, regions: int = 3, flood: bool = True, embed_once: bool = True
    ) -> None:
        super().__init__(model)
        self.regions = regions
        self.flood = flood
        self.embed_once = embed_once
        self._region_of = regions_of(self.head.num_levels, regions)

    @property
    def head(self) -> Any:
        """The head of the model, which the stock trainer replaces by wrapped ones and those of `model_init`."""
        model = uncompiled(self.model)
        return rating_head(getattr(model, "module", model))  # inside DDP

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """Embed both columns and return the mean loss of the pairs of rows."""
        embeddings, _ = embedded(self, sentence_features, compare=False)
        return self.compute_loss_from_embeddings(embeddings, labels)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor) -> Tensor:
        """Mean loss of the pairs of rows of this device.

        Args:
            embeddings: Two columns, (B, D) each.
            labels: Scores, (B,), floats or integers such as numbers of stars.
        """
        if len(embeddings) != 2:
            raise ValueError(f"RatingLoss needs two columns of inputs, got {len(embeddings)}")
        check_columns(embeddings, None)
        rows = len(embeddings[0])
        if labels is None or labels.shape != (rows,):
            got = None if labels is None else f"{labels.dtype} of shape {tuple(labels.shape)}"
            raise ValueError(f"RatingLoss needs a label column of scores, one number a row, got {got}")
        log_p = self.head.log_probabilities(*embeddings)
        levels = self.head.levels_of(labels)
        losses, pairs = region_losses(log_p, labels, levels, self._region_of.to(log_p.device), self.flood)
        return losses.masked_fill(~pairs, 0.0).sum() / pairs.sum().clamp(min=1)

    def get_config_dict(self) -> dict[str, Any]:
        """Settings for the model card."""
        return {"regions": self.regions, "flood": self.flood, "embed_once": self.embed_once}

    @property
    def citation(self) -> str:
        """BibTeX of the method, for the model card."""
        return """
@misc{chen2026oprm,
    title = "Learning Ordinal Probabilistic Reward from Preferences",
    author = "Chen, Longze and Wang, Lu and Shan, Renke and Gong, Ze and Luo, Run and Li, Jiaming and Luo, Jing and
              Wang, Qiyao and Yang, Min",
    year = "2026",
    eprint = "2602.12660",
    archivePrefix = "arXiv",
    url = "https://arxiv.org/abs/2602.12660",
}
"""

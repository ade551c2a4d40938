"""A rating of two embeddings, as a distribution over ordered levels."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from st_vi.checks import check_whole
from st_vi.inputs.as_list import as_list
from st_vi.modules.saved_module import SavedModule
from st_vi.terms.pairs import unit
from st_vi.terms.ratings import region_losses, regions_of

Vectors = Tensor | np.ndarray


class Ratings(NamedTuple):
    """What `RatingHead.rate` says of N pairs.

    Attributes:
        expected: Mean of the distribution, (N,), on the scale of the scores.
        probabilities: The probability of every level, (N, K), from the lowest to the highest.
    """

    expected: Tensor
    probabilities: Tensor


def pair_features(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """x of each pair, (N, 2D), of length about 1, and the cosine, (N,); see `RatingHead`.

    Args:
        u: (N, D).
        v: (N, D).
    """
    u, v = unit(u), unit(v)
    product = u * v
    x = torch.cat([(u - v).abs(), math.sqrt(u.shape[1]) * product], dim=1) / math.sqrt(2)
    return x, product.sum(dim=1)


class RatingHead(SavedModule):
    """A distribution over K ordered ratings for each pair of embeddings u, v (D,).

    With û and v̂ the embeddings at length 1, and t_k from −1 for the lowest level to 1 for the highest:

        x   = [ |û − v̂| ; √D·(û ∘ v̂) ] / √2
        z_k = g t_k (cos(u, v) − ½) + b_k + w_kᵀ x
        p_k = e^{z_k} / Σ_l e^{z_l}

    The ratings r_k lie evenly from `lowest` to `highest`, and the level of a score is that of the nearest rating (the
    higher one of two). The expected rating is Σ_k p_k r_k. The order of u and v makes no difference.

    It is a module of the model, so that one folder has both: saved, loaded, put into checkpoints and trained with the
    model, by the stock trainer with `st_vi.losses.RatingLoss`. It leaves the vectors as they are. Without touching the
    model, `fit` trains it on vectors. With ``load(…, backend="onnx")`` the model is one graph without a head: use the
    head of the saved model, with the graph as the model of `rate`. A new head has g = 5, b = 0 and w = 0, and ranks
    pairs as the cosine does.

    Source: the Ordinal Probabilistic Reward Model, arXiv 2602.12660, for the distribution over nine ratings, its mean
    as the reward, and the loss. There, p are the probabilities of the digits 1 to 9 as the next token of a language
    model. *Ours*: a linear layer on a pair of embeddings in their place, x and the start.

    Args:
        embedding_dimension: D.
        num_levels: K, at least 2.
        lowest: The score of the lowest rating.
        highest: The score of the highest rating, above `lowest`.

    Raises:
        ValueError: `embedding_dimension` or `num_levels` is no such number, or `highest` is not above `lowest`.

    Example:
        >>> import torch
        >>> from st_vi.modules import RatingHead
        >>> head = RatingHead(2, num_levels=3)
        >>> u, v = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        >>> head.log_probabilities(u, v).exp()  # of equal vectors, and of orthogonal ones
        tensor([[0.0062, 0.0754, 0.9184],
                [0.9184, 0.0754, 0.0062]], grad_fn=...)
        >>> head.levels_of(torch.tensor([0.0, 0.25, 0.7]))
        tensor([0, 1, 1])
    """

    config_keys: list[str] = ["embedding_dimension", "num_levels", "lowest", "highest"]  # noqa: RUF012

    def __init__(
        self, embedding_dimension: int, num_levels: int = 9, lowest: float = 0.0, highest: float = 1.0
    ) -> None:
        super().__init__()
        check_whole("embedding_dimension", embedding_dimension)
        check_whole("num_levels", num_levels, least=2)
        if not (math.isfinite(lowest) and math.isfinite(highest) and lowest < highest):
            raise ValueError(f"highest must be above lowest, got {lowest} and {highest}")
        self.embedding_dimension = embedding_dimension
        self.num_levels = num_levels
        self.lowest = float(lowest)
        self.highest = float(highest)
        self.rating_scale = nn.Parameter(torch.tensor(5.0))
        self.rating_bias = nn.Parameter(torch.zeros(num_levels))
        self.rating_weight = nn.Parameter(torch.zeros(num_levels, 2 * embedding_dimension))

    @classmethod
    def add_to(
        cls, model: SentenceTransformer, num_levels: int = 9, lowest: float = 0.0, highest: float = 1.0
    ) -> RatingHead:
        """Append a new head to a model, in place of any head that it has.

        Args:
            model: Changed in place. Its vectors stay as they are.
            num_levels: As for the class.
            lowest: As for the class.
            highest: As for the class.

        Raises:
            ValueError: As for the class.

        Example:
            >>> from st_vi import load
            >>> from st_vi.modules import RatingHead
            >>> model = load("vi-mini", device="cpu")
            >>> RatingHead.add_to(model, num_levels=6, highest=5) is model[-1]
            True
        """
        sizes = (getattr(module, "get_embedding_dimension", None) for module in reversed(list(model)))
        dimension = next(size() for size in sizes if size)  # before `truncate_dim`
        head = cls(dimension, num_levels, lowest, highest)
        for place in reversed(range(len(model))):
            if isinstance(model[place], cls):
                del model[place]
        model.append(head.to(model.device))
        head.on_model_ready(model)
        return head

    @property
    def ratings(self) -> Tensor:
        """r, (K,)."""
        return torch.linspace(self.lowest, self.highest, self.num_levels, device=self.rating_bias.device)

    def levels_of(self, scores: Tensor) -> Tensor:
        """The level of each score, (N,) int from 0 to K − 1.

        Raises:
            ValueError: A score is not between `lowest` and `highest`.
        """
        outside = scores[~((scores >= self.lowest) & (scores <= self.highest))]
        if len(outside):
            raise ValueError(
                f"scores must lie between {self.lowest:g} and {self.highest:g}, as the RatingHead says, got "
                f"{outside[0].item():g}"
            )
        place = (scores.double() - self.lowest) / (self.highest - self.lowest)
        # 2e-7: a score between two ratings is rounded up whether it comes in fp32 or in float64.
        return ((place + 2e-7) * (self.num_levels - 1) + 0.5).floor().long()

    def log_probabilities(self, u: Tensor, v: Tensor) -> Tensor:
        """log p of each pair, (N, K), in at least fp32.

        Args:
            u: (N, D), of any length.
            v: (N, D).

        Raises:
            ValueError: The vectors are not (N, D) both.
        """
        if u.shape != v.shape or u.ndim != 2 or u.shape[1] != self.embedding_dimension:
            raise ValueError(
                f"the RatingHead is for two times (N, {self.embedding_dimension}), got {tuple(u.shape)} and "
                f"{tuple(v.shape)}"
            )
        dtype = torch.promote_types(u.dtype, torch.float32)
        with torch.autocast(u.device.type, enabled=False):
            x, cosine = pair_features(u.to(dtype), v.to(dtype))
            scale, bias, weight = (part.to(dtype) for part in (self.rating_scale, self.rating_bias, self.rating_weight))
            t = torch.linspace(-1, 1, self.num_levels, dtype=dtype, device=u.device)
            return (scale * (cosine - 0.5)[:, None] * t + bias + x @ weight.T).log_softmax(dim=1)

    def expected(self, probabilities: Tensor) -> Tensor:
        """The mean rating, (N,), of probabilities (N, K)."""
        mean = probabilities @ self.ratings.to(probabilities)
        return mean.clamp(self.lowest, self.highest)  # probabilities may add up to a little more than 1

    def fit(
        self,
        u: Vectors,
        v: Vectors,
        scores: Vectors | Sequence[float],
        *,
        regions: int = 3,
        flood: bool = True,
        steps: int = 300,
        batch_size: int = 64,
        learning_rate: float = 0.01,
        weight_decay: float = 0.1,
        seed: int = 0,
    ) -> None:
        """Train the head alone, on vectors, with the loss of `st_vi.losses.RatingLoss` and AdamW.

        Args:
            u: Embeddings (N, D), such as those of ``model.encode(first)``.
            v: Embeddings (N, D) of the other sides.
            scores: N numbers from `lowest` to `highest`, not all equal.
            regions: As for `RatingLoss`.
            flood: As for `RatingLoss`.
            steps: Batches, drawn without repeats until all rows were used.
            batch_size: Rows in a batch, at least 2.
            learning_rate: Of AdamW.
            weight_decay: Of AdamW, for w only.
            seed: Of the order of the rows.

        Raises:
            ValueError: Shapes do not match, a vector is not finite, a score is out of range, all of them are equal, or
                a setting is out of range.
        """
        device, region_of = self.rating_bias.device, regions_of(self.num_levels, regions)
        u, v = (torch.as_tensor(side).to(device) for side in (u, v))
        if not (u.isfinite().all() and v.isfinite().all()):
            raise ValueError("the vectors hold NaN or infinite values")
        scores = torch.as_tensor(scores, dtype=torch.float64).to(device)
        if scores.shape != u.shape[:1]:
            raise ValueError(f"{len(u)} pairs need as many scores, got shape {tuple(scores.shape)}")
        check_whole("batch_size", batch_size, least=2)  # rows are compared
        check_whole("steps", steps)
        levels = self.levels_of(scores)
        if not len(scores) or (scores == scores[0]).all():
            raise ValueError("all scores are equal: there is nothing to compare")
        groups = [
            {"params": [self.rating_weight], "weight_decay": weight_decay},
            {"params": [self.rating_scale, self.rating_bias], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=learning_rate)
        generator, order = torch.Generator().manual_seed(seed), torch.empty(0, dtype=torch.long)
        for _ in range(steps):
            if len(order) < min(batch_size, len(scores)):
                order = torch.randperm(len(scores), generator=generator)
            rows, order = order[:batch_size].to(device), order[batch_size:]
            log_p = self.log_probabilities(u[rows], v[rows])
            losses, pairs = region_losses(log_p, scores[rows], levels[rows], region_of.to(device), flood)
            if pairs.any():
                optimizer.zero_grad()
                losses[pairs].mean().backward()
                optimizer.step()

    @torch.no_grad()
    def rate(
        self,
        model: SentenceTransformer,
        first: Sequence[Any],
        second: Sequence[Any],
        *,
        prompt_name: str | None = None,
        batch_size: int = 32,
    ) -> Ratings:
        """Rate pairs of inputs.

        Args:
            model: The model whose vectors the head was trained on.
            first: N inputs, or one, as for ``encode``.
            second: N inputs, or one.
            prompt_name: As for ``encode``.
            batch_size: Inputs per batch.

        Raises:
            ValueError: The columns differ in length, or the vectors of the model have another size.

        Example:
            >>> from st_vi import load
            >>> from st_vi.modules import RatingHead
            >>> model = load("vi-mini", device="cpu")
            >>> head = RatingHead(model.get_embedding_dimension(), num_levels=6, highest=5)
            >>> first = ["Trời mưa to.", "Trời mưa to."]
            >>> rated = head.rate(model, first, ["Mưa rất lớn.", "Giá vàng giảm mạnh."])
            >>> rated.probabilities.shape, bool(rated.expected[0] > rated.expected[1])
            (torch.Size([2, 6]), True)
        """
        first, second = as_list(first)[0], as_list(second)[0]
        if len(first) != len(second):
            raise ValueError(f"every input needs a partner, got {len(first)} and {len(second)}")
        device = self.rating_bias.device
        if not len(first):
            return Ratings(torch.empty(0), torch.empty(0, self.num_levels))
        u, v = (
            model.encode(
                side,
                prompt_name=prompt_name,
                batch_size=batch_size,
                convert_to_tensor=True,
                show_progress_bar=False,
                truncate_dim=sys.maxsize,  # not that of the model
            ).to(device)
            for side in (first, second)
        )
        probabilities = self.log_probabilities(u, v).exp()
        return Ratings(self.expected(probabilities).cpu(), probabilities.cpu())

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Leave the vectors as they are."""
        if torch.is_grad_enabled() and self.training:
            # Nothing is added but a place in the graph: with several processes, DDP would take the head for unused.
            part = sum(parameter.sum() for parameter in self.parameters())
            features["sentence_embedding"] = features["sentence_embedding"] + 0.0 * part
        return features

"""Images found by their vector, then ordered by how their patches answer the query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import batch_to_device, truncate_embeddings
from torch import Tensor
from tqdm.auto import tqdm

from st_vi.checks import check_whole
from st_vi.evaluation.base import Evaluator, by_place
from st_vi.evaluation.task_retrieval import input_key, rank_figures, ranks_of_right
from st_vi.inputs.content import reader_key
from st_vi.inputs.prompts import prompt_of
from st_vi.inspection.attention import around_pooling
from st_vi.inspection.patches import reader


@torch.no_grad()
def patch_vectors(
    model: SentenceTransformer,
    pictures: Sequence[Any],
    *,
    prompt_name: str | None = None,
    batch_size: int = 32,
    show_progress_bar: bool = False,
) -> list[Tensor]:
    """The embedding of every patch of every image, (patches, D) fp32 each, of length 1.

    The embedding of a patch is that which the model gives if the token of the patch is the only one that is pooled, as
    in `QueryMap.similarity`. All patches of an image come from one pass through the backbone.

    Args:
        model: As for `view_patches`.
        pictures: Inputs with one or more images, as for ``encode``.
        prompt_name: As for ``encode``.
        batch_size: Inputs per batch.
        show_progress_bar: Show the progress.

    Raises:
        ValueError: The model does not accept images or has no attention pooling, an input has no image, or
            `batch_size` is no positive integer.

    Example:
        >>> from st_vi import load
        >>> from st_vi.data.generated.scenes import draw, scene
        >>> from st_vi.inspection.rescoring import patch_vectors
        >>> (vectors,) = patch_vectors(load("poly-mini", device="cpu"), [draw(scene("test", 0))])
        >>> vectors.shape
        torch.Size([16, 384])
    """
    reader(model)
    check_whole("batch_size", batch_size)
    pictures = by_place(pictures)
    model.eval()
    found: list[Tensor] = []
    starts = range(0, len(pictures), batch_size)
    for start in tqdm(starts, desc="Batches", disable=not show_progress_bar):
        batch = [pictures[place] for place in range(start, min(start + batch_size, len(pictures)))]
        features = batch_to_device(model.preprocess(batch, prompt=prompt_of(model, None, prompt_name)), model.device)
        of_batch = embedded_patches(model, features)
        if not all(map(len, of_batch)):
            raise ValueError(f"input {start + [*map(len, of_batch)].index(0)} has no image")
        found += [vectors.float().cpu() for vectors in of_batch]
    return found


def embedded_patches(model: SentenceTransformer, features: dict[str, Any]) -> list[Tensor]:
    """`patch_vectors` of preprocessed inputs, with gradients and on the device of the model; empty without an image."""
    before, pooling, after = around_pooling(model)
    features = before(features)
    states = [
        own[torch.cat([places.flatten() for places in maps])] if maps else own[:0]
        for own, maps in zip(features["token_embeddings"], reader(model).patch_positions(features), strict=True)
    ]
    tokens = torch.cat(states)[:, None]
    alone: dict[str, Any] = {"token_embeddings": tokens, "attention_mask": tokens.new_ones(len(tokens), 1).long()}
    embeddings = after(pooling(alone))["sentence_embedding"]
    vectors = F.normalize(truncate_embeddings(embeddings, model.truncate_dim), dim=1)
    return list(vectors.split([len(part) for part in states]))


def pooled_by_query(queries: Tensor, patches: Tensor, temperature: float | None = None) -> Tensor:
    """The patches of an image, pooled for each query by their cosine with it.

        a = softmax_m( cos(q, p_m) / τ ),   c(q) = Σ_m a_m p_m

    Source: the language–video attention of TC-MGC (arXiv 2504.04707): softmax(Q Kᵀ/√d) V with the query's embedding as
    Q and the frames' as K and V. In its released code, projections are the identity and inputs go through a LayerNorm,
    which gives them a length of √d: so its weights are those of τ = 1/√d. *Ours*: patches of an image in place of the
    frames of a video, and no weights to train: the linear layer with its residual and norms is left out.

    Args:
        queries: q, (Q, D).
        patches: p, (M, D), of length 1.
        temperature: τ > 0; None for 1/√D.

    Returns:
        c, (Q, D).

    Raises:
        ValueError: `temperature` is not above 0.

    Example:
        >>> import torch
        >>> from st_vi.inspection.rescoring import pooled_by_query
        >>> pooled_by_query(torch.tensor([[1.0, 0.0]]), torch.eye(2), temperature=0.1)
        tensor([[9.9995e-01, 4.5398e-05]])
    """
    temperature = patches.shape[1] ** -0.5 if temperature is None else temperature
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    weights = (F.normalize(queries, dim=1) @ patches.T / temperature).softmax(dim=1)
    return weights @ patches


class RescoredRetrievalEvaluator(Evaluator):
    """Retrieval of images by text and back: by one vector, and with the best `top_k` ordered again by their patches.

    The score of a text q and an image e is the cosine of their vectors. For the `top_k` candidates of each query, it
    becomes, with c(q) the patches of the image pooled under the attention of the text (`pooled_by_query`):

        s = (1 − w) cos(q, e) + w cos(q, c(q))

    The other candidates keep their places behind them. For both directions, ``text_to_image`` and ``image_to_text``:
    ``recall@1``, ``recall@5``, ``recall@10`` and ``mrr`` after re-scoring, and the same with ``single_`` in front
    before it; ``mean_recall@1``, the primary metric, is the mean of both directions after re-scoring. Ties count
    against the model. Texts and images with equal content count as one, and whatever belongs to any row of a query is
    right, as in `TaskRetrievalEvaluator`.

    Re-scoring costs M products an image, M being its patches, and their vectors: M·D numbers an image.

    Source: TC-MGC (arXiv 2504.04707) pools a video under the query in training and retrieval, for all pairs. *Ours*:
    only for the best of the single vector, without training, mixed by w; the paper mixes its similarities by a trained
    linear layer and a softmax.

    Args:
        texts: N texts.
        pictures: N inputs with an image: the image that belongs to each text.
        top_k: Candidates to score again, at least 1.
        weight: w, from 0 (nothing changes but ties) to 1.
        temperature: τ of `pooled_by_query`.
        name: Put before every metric.
        batch_size: Inputs per batch.
        show_progress_bar: Show the progress of encoding.
        write_csv: Add a line to a CSV file when an output path is given.

    Attributes:
        ranks: After a call, "text_to_image", "image_to_text" and the same with "single_" in front: for each distinct
            query the rank of its best right answer, 1 is best.

    Raises:
        ValueError: Unequal lengths, no rows, a value that is no input or cannot be read (its row is named), a setting
            out of range, or as for `patch_vectors`.

    Example:
        >>> from st_vi import load
        >>> from st_vi.data.generated.scenes import caption_rows
        >>> from st_vi.inspection.rescoring import RescoredRetrievalEvaluator
        >>> rows = caption_rows("test", 8, seed=0)
        >>> evaluator = RescoredRetrievalEvaluator(rows["positive"][:], rows["anchor_image"][:], top_k=3)
        >>> metrics = evaluator(load("poly-mini", device="cpu"))
        >>> metrics["single_text_to_image_recall@5"]
        1.0
    """

    def __init__(
        self,
        texts: Sequence[str],
        pictures: Sequence[Any],
        *,
        top_k: int = 10,
        weight: float = 0.25,
        temperature: float | None = None,
        name: str = "",
        batch_size: int = 32,
        show_progress_bar: bool = False,
        write_csv: bool = True,
    ) -> None:
        super().__init__("rescored_retrieval", "mean_recall@1", name, batch_size, show_progress_bar, write_csv)
        texts, pictures = by_place(texts), by_place(pictures)
        if not len(texts) == len(pictures) > 0:
            raise ValueError(f"texts and pictures need one length above 0, got {len(texts)} and {len(pictures)}")
        check_whole("top_k", top_k)
        if not 0 <= weight <= 1:
            raise ValueError(f"weight must lie between 0 and 1, got {weight}")
        if temperature is not None and not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self.top_k, self.weight, self.temperature = top_k, weight, temperature
        self.texts, of_text = _distinct(texts, "texts")
        self.pictures, of_picture = _distinct(pictures, "pictures")
        self.right = torch.zeros(len(self.texts), len(self.pictures), dtype=torch.bool)
        self.right[of_text, of_picture] = True
        self.ranks: dict[str, Tensor] = {}

    def _measure(self, model: SentenceTransformer) -> tuple[dict[str, float], str]:
        texts, pictures = (
            F.normalize(torch.from_numpy(column), dim=1) for column in self._encode(model, self.texts, self.pictures)
        )
        patches = patch_vectors(
            model, self.pictures, batch_size=self.batch_size, show_progress_bar=self.show_progress_bar
        )
        single = texts @ pictures.T
        wanted = _first(single, self.top_k) | _first(single.T, self.top_k).T
        again = torch.full_like(single, -torch.inf)
        for number, of_picture in enumerate(patches):
            rows = wanted[:, number].nonzero().squeeze(1)
            pooled = pooled_by_query(texts[rows], of_picture, self.temperature)
            cosine = F.cosine_similarity(texts[rows], pooled, dim=1)
            again[rows, number] = (1 - self.weight) * single[rows, number] + self.weight * cosine
        metrics: dict[str, float] = {}
        matrices = (single, again, self.right)
        directions = {"text_to_image": matrices, "image_to_text": tuple(matrix.T for matrix in matrices)}
        for direction, (before, scored, right) in directions.items():
            # Below all that was scored again, in the old order: cosines lie in [−1, 1], and so do scores.
            after = torch.where(_first(before, self.top_k), scored, before - 4)
            for kind, scores in (("", after), ("single_", before)):
                ranks = self.ranks[f"{kind}{direction}"] = ranks_of_right(scores, right)
                metrics |= {f"{kind}{direction}_{name}": value for name, value in rank_figures(ranks).items()}
        metrics["mean_recall@1"] = (metrics["text_to_image_recall@1"] + metrics["image_to_text_recall@1"]) / 2
        return metrics, f"{len(self.texts)} texts, {len(self.pictures)} images"


def _distinct(column: Sequence[Any], name: str) -> tuple[list[Any], list[int]]:
    """The distinct inputs of a column, and the number of each row's input among them."""
    keys = [reader_key(input_key(column[row], row, name)) for row in range(len(column))]
    first = {key: place for place, key in reversed([*enumerate(keys)])}
    number = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return [column[first[key]] for key in number], [number[key] for key in keys]


def _first(scores: Tensor, k: int) -> Tensor:
    """The best k of every row, as a mask."""
    best = scores.topk(min(k, scores.shape[1]), dim=1).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, best, True)

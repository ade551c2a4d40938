"""Batch samplers for the stock trainer: hard negatives in one batch, easy rows before hard ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import ArrayLike
from sentence_transformers.base.sampler import DefaultBatchSampler
from sklearn.cluster import MiniBatchKMeans
from sklearn.preprocessing import normalize

from st_vi.checks import check_whole


def cluster_rows(embeddings: ArrayLike, num_clusters: int, seed: int = 0) -> np.ndarray:
    """Clusters of similar directions: k-means (scikit-learn) over unit vectors.

    Rounding differs between machines: if the same batches matter, compute the clusters once and save them.

    Args:
        embeddings: (N, D), such as `model.encode` of the anchors. With about N / (4 · batch size) clusters, most
            batches come from one cluster.
        num_clusters: Between 1 and N.
        seed: Seed of the starting points.

    Returns:
        (N,), the number of each row's cluster, from 0.

    Raises:
        ValueError: Another shape, NaN or infinite values, or `num_clusters` out of range.

    Example:
        >>> from st_vi.data import cluster_rows
        >>> clusters = cluster_rows([[1.0, 0.0], [0.0, 1.0], [5.0, 0.1]], num_clusters=2)
        >>> bool(clusters[0] == clusters[2] != clusters[1])
        True
    """
    embeddings = np.asarray(embeddings)
    if embeddings.ndim != 2 or not 1 <= num_clusters <= len(embeddings):
        raise ValueError(
            f"there must be as many vectors as clusters or more, got the shape {embeddings.shape} for {num_clusters}"
        )
    # Of batches larger than the library's default: for most sets of rows that is all of them at once.
    kmeans = MiniBatchKMeans(num_clusters, batch_size=8192, n_init=3, random_state=seed)
    return kmeans.fit_predict(normalize(embeddings))


class _RowBatchSampler(DefaultBatchSampler):
    """The base of both samplers: one number for each row, and an order that depends only on seed and epoch."""

    def __init__(self, dataset: Dataset, *args: Any, numbers: ArrayLike, **kwargs: Any) -> None:
        super().__init__(dataset, *args, **kwargs)
        self.numbers = np.asarray(numbers)
        if self.numbers.shape != (len(dataset),):
            raise ValueError(
                f"there must be one number for each of the {len(dataset)} rows, got the shape {self.numbers.shape}. "
                "With several datasets or an eval_dataset, batch_sampler is called for each of them: pass a function "
                "of a module (the trainer pickles it) that has the numbers of each"
            )

    def _random(self) -> np.random.Generator:
        # Not from the generator of the loader: samplers of several sets share that one, and draw by turns.
        return np.random.default_rng([self.seed or 0, self.epoch])

    def __len__(self) -> int:
        rows = len(self.numbers)
        return rows // self.batch_size if self.drop_last else -(-rows // self.batch_size)


class ClusterBatchSampler(_RowBatchSampler):
    """Batches of one cluster each, so that the negatives in a batch are hard: a row's neighbours.

    Every row comes once per epoch. Rows of a cluster are shuffled and cut into full batches; the leftover rows of all
    clusters fill mixed batches; the order of the batches is shuffled, with an incomplete one last. All of it depends
    only on seed and epoch: it is the same in every process and after a resume. (With several processes, or before
    transformers 5.17, the stock trainer does not pass the epoch to a batch sampler when it resumes within one: resume
    at the end of an epoch there.)

    Similar anchors share answers more often than others, so false negatives are more frequent, too. A loss that masks
    repeated texts, such as `SupConNLILoss`, excludes the literal ones.

    Source: TAS-B, arXiv 2104.06967 (topic-aware sampling: k-means over queries); mixing the leftover rows is
    *inferred*.

    Args:
        dataset: N rows.
        *args: Arguments of the stock `DefaultBatchSampler`, passed by the trainer.
        clusters: (N,), such as the numbers of `cluster_rows`, or the names of documents.
        **kwargs: Arguments of the stock `DefaultBatchSampler`; `seed` is the trainer's, `generator` is not used.

    Raises:
        ValueError: Not one number for each row.

    Example:
        >>> from functools import partial
        >>> from datasets import Dataset
        >>> from sentence_transformers import SentenceTransformerTrainingArguments
        >>> from st_vi.data import ClusterBatchSampler
        >>> make = partial(ClusterBatchSampler, clusters=[0, 1, 0, 1])
        >>> args = SentenceTransformerTrainingArguments(batch_sampler=make, use_cpu=True)
        >>> rows = Dataset.from_dict({"anchor": ["mưa", "mèo", "gió", "chó"]})
        >>> sorted(sorted(batch) for batch in make(rows, batch_size=2, drop_last=False))
        [[0, 2], [1, 3]]
    """

    def __init__(self, dataset: Dataset, *args: Any, clusters: ArrayLike, **kwargs: Any) -> None:
        super().__init__(dataset, *args, numbers=clusters, **kwargs)
        if (unknown := self.numbers != self.numbers).any():
            raise ValueError(f"the cluster of row {int(np.argmax(unknown))} is NaN")

    def __iter__(self) -> Iterator[list[int]]:
        random, full, left = self._random(), [], []
        shuffled = random.permutation(len(self.numbers))
        by_cluster = shuffled[np.argsort(self.numbers[shuffled], kind="stable")]
        _, first = np.unique(self.numbers[by_cluster], return_index=True)
        clusters = np.split(by_cluster, first[1:])
        random.shuffle(clusters)
        for rows in clusters:
            end = len(rows) - len(rows) % self.batch_size
            full += _cut(rows[:end].tolist(), self.batch_size)
            left += rows[end:].tolist()
        mixed = _cut(left, self.batch_size)
        incomplete = [mixed.pop()] if mixed and len(mixed[-1]) < self.batch_size else []
        batches = full + mixed
        for place in random.permutation(len(batches)):
            yield batches[place]
        # Last, because several processes take batches by turns, and lose one where a short one is among them.
        if not self.drop_last:
            yield from incomplete


class CurriculumBatchSampler(_RowBatchSampler):
    """From rows with easy negatives to rows with hard ones, in every epoch.

    Every row comes once per epoch, in the order of hardness, shuffled within `window` rows: no row is `window` places
    or more away from its rank, so that epochs differ but the order remains. It depends only on seed and epoch: it is
    the same in every process and after a resume, with the exception that `ClusterBatchSampler` names.

    For a curriculum over the whole training, train for one epoch: every epoch starts with easy rows again, so that no
    step depends on the length of the training.

    Source: *inferred*; curriculum learning as in Bengio et al. 2009, in its simplest form.

    Args:
        dataset: N rows.
        *args: Arguments of the stock `DefaultBatchSampler`, passed by the trainer. The incomplete batch has the hardest
            rows.
        hardness: (N,) numbers, such as those of `hardness`; larger is harder.
        window: Rows, 1 or more. 1 is the strict order, many times the number of rows a plain shuffle; None means a
            tenth of the rows.
        **kwargs: Arguments of the stock `DefaultBatchSampler`; `seed` is the trainer's, `generator` is not used.

    Raises:
        ValueError: Not one number for each row, NaN or infinite values, or `window` below 1.

    Example:
        >>> from functools import partial
        >>> from datasets import Dataset
        >>> from st_vi.data import CurriculumBatchSampler
        >>> make = partial(CurriculumBatchSampler, hardness=[0.1, -0.4, 0.3, -0.2], window=1)
        >>> list(make(Dataset.from_dict({"anchor": ["mưa", "mèo", "gió", "chó"]}), batch_size=2, drop_last=False))
        [[1, 3], [0, 2]]
    """

    def __init__(
        self, dataset: Dataset, *args: Any, hardness: ArrayLike, window: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(dataset, *args, numbers=hardness, **kwargs)
        if not np.isfinite(self.numbers).all():
            raise ValueError(f"hardness of row {np.flatnonzero(~np.isfinite(self.numbers))[0]} is NaN or infinite")
        self.window = max(1, len(dataset) // 10) if window is None else window
        check_whole("window", self.window)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.argsort(self.numbers, kind="stable")
        # A row overtakes only those less than a window in front of it.
        late = np.arange(len(order)) + self._random().uniform(0, self.window, len(order))
        batches = _cut(order[np.argsort(late, kind="stable")].tolist(), self.batch_size)
        yield from batches[: len(self)]


def _cut(rows: list[int], size: int) -> list[list[int]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]

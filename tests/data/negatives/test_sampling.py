"""The samplers: every row once, in the promised order, the same in every process and after a resume."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
import transformers
from accelerate.data_loader import BatchSamplerShard
from datasets import Dataset, DatasetDict
from packaging.version import Version
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from st_vi.data import sample_nli
from st_vi.data.negatives.sampling import ClusterBatchSampler, CurriculumBatchSampler, cluster_rows

NUM_ROWS = 103
TEXTS = sample_nli()["hypothesis"][: 2 * NUM_ROWS]


def dataset(num_rows: int = NUM_ROWS) -> Dataset:
    return Dataset.from_dict({"anchor": TEXTS[:num_rows], "positive": TEXTS[num_rows : 2 * num_rows]})


def rows_of(sampler) -> list[int]:
    return [row for batch in sampler for row in batch]


CLUSTERS = np.random.default_rng(0).choice([0, 1, 2, 7, 9], NUM_ROWS, p=[0.4, 0.3, 0.15, 0.1, 0.05])
HARDNESS = np.random.default_rng(1).normal(size=NUM_ROWS).round(1)  # with ties
SAMPLERS = [
    partial(ClusterBatchSampler, clusters=CLUSTERS),
    partial(ClusterBatchSampler, clusters=[f"bài {number}" for number in CLUSTERS]),
    partial(CurriculumBatchSampler, hardness=HARDNESS),
    partial(CurriculumBatchSampler, hardness=HARDNESS.tolist(), window=1),
]


@pytest.mark.parametrize("make", SAMPLERS)
@pytest.mark.parametrize("batch_size", [1, 4, 16, 103, 200])
@pytest.mark.parametrize("drop_last", [False, True])
def test_every_row_once_an_epoch(make, batch_size, drop_last):
    sampler = make(dataset(), batch_size=batch_size, drop_last=drop_last, seed=3)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        rows = [row for batch in batches for row in batch]
        assert len(batches) == len(sampler) and len(set(rows)) == len(rows)
        assert len(rows) == (NUM_ROWS - NUM_ROWS % batch_size if drop_last else NUM_ROWS)
        # Only the last batch may be short: accelerate loses rows where another one is.
        assert all(len(batch) == batch_size for batch in batches[:-1])


@pytest.mark.parametrize("make", SAMPLERS[:3])
def test_the_order_depends_on_seed_and_epoch_alone(make):
    orders = {}
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        for state in (5, 6):  # of what other code draws from
            np.random.seed(state)
            torch.manual_seed(state)
            generator = torch.Generator().manual_seed(state)
            sampler = make(dataset(), batch_size=8, drop_last=False, seed=seed, generator=generator)
            sampler.set_epoch(epoch)
            assert orders.setdefault((seed, epoch), list(sampler)) == list(sampler)
    assert len({str(order) for order in orders.values()}) == 3


@pytest.mark.parametrize("make", SAMPLERS)
@pytest.mark.parametrize("batch_size", [5, 8])
def test_two_processes_share_the_rows(make, batch_size):
    """As accelerate shards them: each takes every other batch of the same order, none is lost."""
    samplers = [make(dataset(), batch_size=batch_size, drop_last=False, seed=2) for _ in range(2)]
    shards = [
        BatchSamplerShard(sampler, num_processes=2, process_index=rank, even_batches=False)
        for rank, sampler in enumerate(samplers)
    ]
    assert sorted(rows_of(shards[0]) + rows_of(shards[1])) == list(range(NUM_ROWS))


def test_batches_come_from_one_cluster():
    sampler = ClusterBatchSampler(dataset(), batch_size=4, drop_last=False, clusters=CLUSTERS)
    pure = [batch for batch in sampler if len(batch) == 4 and len(set(CLUSTERS[batch])) == 1]
    counts = np.unique(CLUSTERS, return_counts=True)[1]
    assert sorted(counts % 4)[-1] > 0
    assert len(pure) >= sum(counts // 4)
    # The order of the batches does not follow the clusters.
    order = [CLUSTERS[batch[0]] for batch in pure]
    assert sum(a != b for a, b in pairwise(order)) > len(np.unique(CLUSTERS))


def test_rows_meet_others_of_their_cluster_in_the_next_epoch():
    sampler = ClusterBatchSampler(dataset(), batch_size=4, drop_last=False, clusters=CLUSTERS)
    first = {frozenset(batch) for batch in sampler}
    sampler.set_epoch(1)
    assert len(first & {frozenset(batch) for batch in sampler}) < 3


@pytest.mark.parametrize("window", [1, 5, 30, None])
def test_no_row_leaves_its_window(window):
    sampler = CurriculumBatchSampler(dataset(), batch_size=4, drop_last=False, hardness=HARDNESS, window=window)
    ranks = np.empty(NUM_ROWS, dtype=int)
    ranks[sorted(range(NUM_ROWS), key=lambda row: HARDNESS[row])] = range(NUM_ROWS)  # Python's sort is stable too
    moved = [abs(place - ranks[row]) for place, row in enumerate(rows_of(sampler))]
    assert max(moved) < (window or 10)
    assert window == 1 or max(moved) > (window or 10) // 3


def test_from_easy_to_hard():
    order = HARDNESS[rows_of(CurriculumBatchSampler(dataset(), batch_size=4, drop_last=False, hardness=HARDNESS))]
    thirds = [third.mean() for third in np.array_split(order, 3)]
    assert thirds[0] < thirds[1] - 0.5 < thirds[2] - 1
    strict = CurriculumBatchSampler(dataset(), batch_size=4, drop_last=False, hardness=HARDNESS, window=1)
    assert (np.diff(HARDNESS[rows_of(strict)]) >= 0).all()
    wide = CurriculumBatchSampler(dataset(), batch_size=4, drop_last=False, hardness=HARDNESS, window=100 * NUM_ROWS)
    assert abs(np.corrcoef(HARDNESS[rows_of(wide)], range(NUM_ROWS))[0, 1]) < 0.3


class Seen(MultipleNegativesRankingLoss):
    """Remembers the tokens of every batch it was given."""

    def forward(self, features, labels):
        self.batches = [*getattr(self, "batches", []), [row[row != 1].tolist() for row in features[0]["input_ids"]]]
        return super().forward(features, labels)


def train(model, folder, data, make, resume=None, epochs=2, **settings):
    loss = Seen(model)
    args = SentenceTransformerTrainingArguments(
        str(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=4,
        batch_sampler=make,
        save_strategy="steps",
        save_steps=7,
        report_to="none",
        use_cpu=True,
        seed=5,
        disable_tqdm=True,
        **settings,
    )
    trainer = SentenceTransformerTrainer(model, args, data, loss=loss)
    trainer.train(resume_from_checkpoint=resume)
    return loss.batches, trainer


@pytest.mark.slow
@pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.17"), reason="older ones do not tell a batch sampler its epoch"
)
@pytest.mark.parametrize(
    "make",
    [
        partial(ClusterBatchSampler, clusters=CLUSTERS[:20]),
        partial(CurriculumBatchSampler, hardness=HARDNESS[:20], window=6),
    ],
)
def test_the_stock_trainer_and_a_resume_in_the_second_epoch(tiny_model, tmp_path, make):
    data = dataset(20)
    tokens = [tiny_model.tokenizer(text, truncation=True)["input_ids"] for text in data["anchor"]]
    whole, _ = train(tiny_model, tmp_path, data, make)
    assert len(whole) == 10
    for epoch in range(2):
        sampler = make(data, batch_size=4, drop_last=False, seed=5)
        sampler.set_epoch(epoch)
        assert whole[5 * epoch : 5 * epoch + 5] == [[tokens[row] for row in batch] for batch in sampler]
    rest, _ = train(tiny_model, tmp_path, data, make, resume=str(tmp_path / "checkpoint-7"))
    assert rest == whole[7:] and whole[:5] != whole[5:]


def make_for_each(rows, **settings):  # no local function: the stock trainer pickles its arguments
    return ClusterBatchSampler(rows, clusters=CLUSTERS[: len(rows)], **settings)


def test_several_data_sets_each_with_their_own_numbers(tiny_model, tmp_path):
    data = DatasetDict({"a": dataset(20), "b": dataset(32).select(range(20, 32))})
    seen, _ = train(tiny_model, tmp_path, data, make_for_each, epochs=1)
    tokens = sorted(
        tiny_model.tokenizer(text, truncation=True)["input_ids"] for part in data.values() for text in part["anchor"]
    )
    assert sorted(row for batch in seen for row in batch) == tokens


def test_clusters_are_directions():
    """Three bundles of vectors of any length; the same clusters for the same seed."""
    random = np.random.default_rng(0)
    bundle = random.integers(3, size=60)
    vectors = (np.eye(3)[bundle] + 0.05 * random.normal(size=(60, 3))) * random.uniform(0.1, 50, size=(60, 1))
    clusters = cluster_rows(vectors, num_clusters=3, seed=1)
    assert len(set(zip(bundle, clusters, strict=True))) == 3
    assert (clusters == cluster_rows(torch.tensor(vectors), num_clusters=3, seed=1)).all()


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"one number for each of the 103 rows, got the shape \(20,\)"):
        ClusterBatchSampler(dataset(), batch_size=4, drop_last=False, clusters=CLUSTERS[:20])
    with pytest.raises(ValueError, match="the cluster of row 2 is NaN"):
        ClusterBatchSampler(dataset(3), batch_size=4, drop_last=False, clusters=[0, 1, np.nan])
    with pytest.raises(ValueError, match="hardness of row 2 is NaN"):
        CurriculumBatchSampler(dataset(3), batch_size=4, drop_last=False, hardness=[0, 1, np.nan])
    with pytest.raises(ValueError, match="window must be a whole number of at least 1, got 0"):
        CurriculumBatchSampler(dataset(), batch_size=4, drop_last=False, hardness=HARDNESS, window=0)
    with pytest.raises(ValueError, match="as many vectors as clusters"):
        cluster_rows(np.eye(3), num_clusters=4)
    with pytest.raises(ValueError, match="NaN"):
        cluster_rows(np.full((3, 2), np.nan), num_clusters=2)

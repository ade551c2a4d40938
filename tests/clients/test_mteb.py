"""mteb on tasks of one's own: the figures are those of the stock evaluator and of scipy on `encode`."""

from __future__ import annotations

import pytest
from datasets import Dataset
from scipy.stats import spearmanr
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.util import pairwise_cos_sim

from st_vi import load
from st_vi.data import sample_sts
from tests.clients.conftest import QUERIES, TEXTS

RELEVANT = {"q0": {"d0": 1}, "q1": {"d5": 1, "d3": 1}}


@pytest.fixture(scope="module")
def mteb():
    """Imported by the tests that need it: it takes seconds, and every worker collects this file."""
    return pytest.importorskip("mteb", reason='needs pip install "st-vi[clients]"')


def task(base, name, kind, main_score, data):
    """An instance of a task whose rows are here, and nothing to download."""

    from mteb import TaskMetadata

    class Local(base):
        metadata = TaskMetadata(
            name=name,
            description="Rows that were written for this test.",
            dataset={"path": "local", "revision": "1"},
            type=kind,
            eval_langs=["vie-Latn"],
            main_score=main_score,
        )

        def load_data(self, **kwargs):
            self.dataset, self.data_loaded = data, True

    return Local()


def figures(mteb, saved, of_task):
    result = mteb.evaluate(load(saved), of_task, cache=None, co2_tracker=False, show_progress_bar=False)
    return result.task_results[0].scores["test"][0]


@pytest.mark.slow
def test_retrieval_asks_with_the_prompts_and_equals_the_stock_evaluator(mteb, model, saved):
    queries, corpus = ({f"{i}{n}": t for n, t in enumerate(texts)} for i, texts in (("q", QUERIES), ("d", TEXTS)))
    split = {
        "queries": Dataset.from_list([{"id": number, "text": text} for number, text in queries.items()]),
        "corpus": Dataset.from_list([{"id": number, "text": text, "title": ""} for number, text in corpus.items()]),
        "relevant_docs": RELEVANT,
        "top_ranked": None,
    }
    found = figures(
        mteb,
        saved,
        task(mteb.abstasks.AbsTaskRetrieval, "LocalSearch", "Retrieval", "ndcg_at_10", {"default": {"test": split}}),
    )
    stock = InformationRetrievalEvaluator(queries, corpus, {query: set(ids) for query, ids in RELEVANT.items()})
    expected = stock(model)
    assert 0 < found["ndcg_at_10"] < 1
    assert found["ndcg_at_10"] == pytest.approx(expected["cosine_ndcg@10"], abs=1e-4)
    assert found["map_at_100"] == pytest.approx(expected["cosine_map@100"], abs=1e-4)
    assert found["recall_at_3"] == pytest.approx(expected["cosine_recall@3"], abs=1e-4)


@pytest.mark.slow
def test_sts_equals_scipy(mteb, model, saved):
    rows = sample_sts().select(range(20))
    found = figures(mteb, saved, task(mteb.abstasks.AbsTaskSTS, "LocalSTS", "STS", "cosine_spearman", {"test": rows}))
    cosines = pairwise_cos_sim(model.encode(rows["sentence1"][:]), model.encode(rows["sentence2"][:]))
    assert found["cosine_spearman"] == pytest.approx(spearmanr(cosines, rows["score"]).statistic, abs=1e-6)

"""Ranks against a naive loop over raw cosines."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from st_vi.data import sample_nli, sample_sts
from st_vi.evaluation import TaskRetrievalEvaluator


def cosine(u, v):
    return float(u @ v / np.linalg.norm(u) / np.linalg.norm(v))


def test_figures_against_a_loop(tiny_model):
    nli = sample_nli("test").filter(lambda row: row["label"] == "entailment").select(range(30))
    sts = sample_sts("test").select(range(20))
    anchors = [*nli["hypothesis"], *sts["sentence1"]]
    positives = [*nli["premise"][:15], *nli["premise"][:15], *sts["sentence2"]]  # 15 answers, each twice
    tasks = ["instr"] * 30 + ["text_pair"] * 20
    scores = [None] * 30 + [score / 5 for score in sts["score"]]
    metrics = TaskRetrievalEvaluator(anchors, positives, tasks, np.array(scores, dtype=float), name="dev")(tiny_model)

    for task in ("instr", "text_pair"):
        rows = [i for i, name in enumerate(tasks) if name == task]
        corpus, ranks = sorted({positives[i] for i in rows}), []
        vectors = {text: tiny_model.encode(text) for text in corpus}
        own = []
        for i in rows:
            anchor = tiny_model.encode(anchors[i])
            own.append(cosine(anchor, vectors[positives[i]]))
            ranks.append(1 + sum(cosine(anchor, v) > own[-1] + 1e-6 for t, v in vectors.items() if t != positives[i]))
        for k in (1, 5, 10):
            assert metrics[f"dev_{task}_recall@{k}"] == pytest.approx(np.mean([rank <= k for rank in ranks]), abs=1e-6)
        assert metrics[f"dev_{task}_mrr"] == pytest.approx(np.mean([1 / rank for rank in ranks]), abs=1e-6)
        assert metrics[f"dev_{task}_chance"] == 1 / len(corpus)
    assert metrics["dev_text_pair_spearman"] == pytest.approx(spearmanr(own, scores[30:]).statistic, abs=1e-4)
    assert "dev_instr_spearman" not in metrics
    mean = (metrics["dev_instr_recall@1"] + metrics["dev_text_pair_recall@1"]) / 2
    assert metrics["dev_mean_recall@1"] == pytest.approx(mean)


def test_perfect_and_collapsed_models(tiny_model):
    texts = sample_nli("test")["premise"][::3]
    evaluator = TaskRetrievalEvaluator(texts, texts, ["instr"] * len(texts))
    assert evaluator(tiny_model)["instr_mean_rank"] == 1.0
    for parameter in tiny_model[2].parameters():
        parameter.data.zero_()
    tiny_model[2].layers[0].bias.data[0] = 1.0  # every text at one point
    metrics = evaluator(tiny_model)
    assert metrics["instr_recall@1"] == metrics["instr_recall@10"] == 0


def test_options_of_the_own_row(tiny_model):
    texts = sample_nli("test")["premise"][::3][:4]
    options = [[texts[1], texts[2]], None, [texts[2]], ["Không liên quan."]]
    metrics = TaskRetrievalEvaluator(texts, texts, ["vqa_single"] * 4, options=options)(tiny_model)
    assert metrics["vqa_single_option_accuracy"] == pytest.approx(2 / 3)  # an option that is the answer is no better


def test_prompts_go_to_the_anchors_of_their_task(tiny_model):
    tiny_model.prompts = {"hoi": "Cô giáo: "}
    texts = sample_nli("test")["premise"][::3][:8]
    with_prompt = [f"Cô giáo: {text}" for text in texts]
    asked = TaskRetrievalEvaluator(texts, with_prompt, ["instr"] * 8, prompt_names={"instr": "hoi"})(tiny_model)
    assert asked["instr_recall@1"] == 1.0
    assert math.isclose(asked["instr_mean_rank"], 1.0)
    with pytest.raises(ValueError, match="one length"):
        TaskRetrievalEvaluator(texts, texts[:3], ["instr"] * 8)

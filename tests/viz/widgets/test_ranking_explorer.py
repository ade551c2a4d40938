"""Every control changes what it should, to what a naive count gives; bad input is said in place."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from st_vi.inspection.rankings import RetrievalSet
from st_vi.viz.widgets.explorer import NONE
from st_vi.viz.widgets.ranking_explorer import RankingExplorer

CORPUS = [
    "Trời mưa to từ sáng.",
    "Hôm nay nắng đẹp.",
    "Cô giáo giảng bài cho lớp năm.",
    "Con mèo đen ngủ trên mái.",
    "Anh ấy mua cam ở chợ.",
    "Đội bóng thắng trận.",
    "Nhà máy mất điện.",
    "Sách nói về Hà Nội.",
    "Mèo không ngủ trên mái.",
    "Học sinh lớp năm nghe giảng.",
]
QUERIES = [
    "Trời mưa hay nắng?",
    "Hôm nay trời thế nào?",
    "Cô giáo đang làm gì <b>?",
    "Con mèo đen ở đâu?",
    "Anh ấy mua gì ở chợ?",
    "Ai thắng trận?",
    "Vì sao nhà máy ngừng?",
    "Sách này nói về đâu?",
]
RELEVANT = list(range(8))


def naive_ranks(model, queries, corpus, relevant):
    documents = [model.encode(text).astype(float) for text in corpus]
    ranks = []
    for query, right in zip(queries, relevant, strict=True):
        asked = model.encode(query).astype(float)
        cosines = [asked @ d / np.linalg.norm(asked) / np.linalg.norm(d) for d in documents]
        ranks.append(1 + sum(c >= cosines[right] - 1e-9 for i, c in enumerate(cosines) if i != right))
    return ranks


@pytest.fixture(scope="module")
def models(tiny_base):
    return {
        name: SentenceTransformer(modules=[Transformer(str(tiny_base)), Pooling(32, name)], device="cpu")
        for name in ("mean", "max", "cls")
    }


@pytest.fixture(scope="module")
def ranks(models):
    return {name: naive_ranks(model, QUERIES, CORPUS, RELEVANT) for name, model in models.items()}


@pytest.fixture
def explorer(models):
    rows = RetrievalSet(QUERIES, CORPUS, RELEVANT)
    variants = {
        "short": RetrievalSet(["Cô giáo", "Con mèo"], CORPUS, [2, 3]),
        "harder": rows.with_distractors(lambda text: text.replace("Đội", "Hội") if "Đội" in text else None),
        "nothing": rows.with_queries(lambda text: None),
    }
    return RankingExplorer(models, QUERIES, CORPUS, RELEVANT, variants, k=2, show_progress_bar=False)


def drawn(explorer):
    """Rows of every shown trace: how many lines, by the beginning of its name."""
    return [len(trace.y) // 3 for trace in explorer.slopes.data if trace.visible]


def flipped(ranks, a, b, k):
    return (
        [i for i in range(8) if ranks[a][i] <= k < ranks[b][i]],
        [i for i in range(8) if ranks[b][i] <= k < ranks[a][i]],
    )


def test_k_and_poolings(explorer, ranks):
    assert not explorer.notice.value
    seen = set()
    for a, b in (("mean", "max"), ("max", "cls"), ("cls", "mean")):
        explorer.pooling_b.value = next(name for name in ranks if name not in (a, b))
        explorer.pooling_a.value, explorer.pooling_b.value = a, b
        for k in (1, 2, 4):
            explorer.k.value = k
            only_a, only_b = flipped(ranks, a, b, k)
            assert (explorer.flips.only_a, explorer.flips.only_b) == (only_a, only_b)
            assert drawn(explorer) == [8 - len(only_a) - len(only_b), len(only_a), len(only_b)]
            assert list(explorer.slopes.layout.xaxis.ticktext) == [a, b]
            assert explorer.slopes.layout.shapes[0].y0 == k + 0.5
            assert f"<b>{len(only_a)}</b> only under {a}" in explorer.summary.value
            recalls = [np.mean([rank <= k for rank in ranks[name]]) for name in ("mean", "max", "cls")]
            assert list(explorer.bars.data[0].y) == pytest.approx(recalls)
            seen.add((len(only_a), len(only_b)))
    assert len(seen) > 2


def test_margin_leaves_fewer(explorer):
    before = explorer.flips
    assert before.only_a + before.only_b
    explorer.margin.value = 0.02
    some = explorer.flips
    assert {*some.only_a} <= {*before.only_a} and {*some.only_b} <= {*before.only_b}
    explorer.margin.value = 0.5
    assert drawn(explorer) == [8, 0, 0]
    explorer.only_flipped.value = True
    assert "no query is flipped" in explorer.notice.value and len(explorer.query.options) == 1
    explorer.margin.value = 0
    assert not explorer.notice.value and explorer.flips == before


def test_one_query(explorer, models):
    explorer.only_flipped.value = True
    rows = sorted(explorer.flips.only_a + explorer.flips.only_b)
    assert [row for _, row in explorer.query.options] == [NONE, *rows]
    row = rows[0]
    explorer.query.value = row
    assert not explorer.notice.value
    assert f"query {row}" in explorer.slopes.layout.title.text and len(drawn(explorer)) == 4
    assert sum(drawn(explorer)) == len(CORPUS) and drawn(explorer)[3] == 1  # ten or fewer: all documents
    relevant = explorer.slopes.data[3]
    expected = [naive_ranks(models[name], [QUERIES[row]], CORPUS, [row])[0] for name in ("mean", "max")]
    assert [round(height) for height in relevant.y[:2]] == expected
    finder = "mean" if row in explorer.flips.only_a else "max"
    assert f"Only {finder} finds its document" in explorer.details.value
    assert explorer.details.value.count("<span title=") == len(QUERIES[row].split())

    explorer.only_flipped.value = False
    assert explorer.query.value == row and len(explorer.query.options) == 9  # the choice stays
    explorer.query.value = 2
    assert "&lt;b&gt;?" in explorer.details.value and "<b>?" not in explorer.details.value
    explorer.query.value = NONE
    assert not explorer.details.value and sum(drawn(explorer)) == 8


def test_a_syllable_with_a_frame_undoes_the_flip(explorer, models):
    framed = []
    for row in explorer.flips.only_a[:1] + explorer.flips.only_b[:1]:
        explorer.query.value = row
        syllables = QUERIES[row].split()
        for position, chip in enumerate(explorer.details.value.split("<span title=")[1:]):
            without = " ".join(syllables[:position] + syllables[position + 1 :])
            inside = [naive_ranks(models[name], [without], CORPUS, [row])[0] <= 2 for name in ("mean", "max")]
            has_frame = "border:2px solid #1a1a1a" in chip.split(">")[0]
            assert has_frame == (inside[0] == inside[1])
            framed.append(has_frame)
    assert any(framed) and not all(framed)


def test_filters(explorer, models):
    explorer.query.value = 5
    explorer.filter.value = "short"
    assert explorer.query.value == NONE and len(explorer.query.options) == 3
    expected = [
        np.mean([rank <= 2 for rank in naive_ranks(m, ["Cô giáo", "Con mèo"], CORPUS, [2, 3])]) for m in models.values()
    ]
    assert list(explorer.bars.data[0].y) == pytest.approx(expected)
    explorer.filter.value = "harder"
    assert [label for label, _ in explorer.query.options] == ["all queries", "0: Ai thắng trận?"]
    assert explorer.query.label == "all queries"  # and not an empty box
    assert "Hội bóng thắng trận." in explorer.suspects.value and "words" in explorer.suspects.value


def test_bad_input_is_said_in_place(explorer):
    explorer.filter.value = "nothing"
    assert "no query passes" in explorer.notice.value and "nothing" in explorer.notice.value
    assert drawn(explorer) == [0, 0] and len(explorer.bars.data[0].y) == 0 and not explorer.summary.value
    explorer.filter.value = "all"
    assert not explorer.notice.value and sum(drawn(explorer)) == 8
    explorer.k.value = 11
    assert "k = 11 is more than the 10 documents" in explorer.notice.value and not explorer.summary.value
    explorer.k.value = 10  # everything is inside
    assert not explorer.notice.value and drawn(explorer) == [8, 0, 0]
    explorer.query.value = 1
    assert not explorer.notice.value and "st-vi-syllables" not in explorer.details.value
    explorer.pooling_b.value = "mean"
    assert "both poolings are mean" in explorer.notice.value and len(explorer.bars.data[0].y) == 3
    explorer.pooling_b.value = "cls"
    assert not explorer.notice.value


def test_one_pooling_only(models):
    explorer = RankingExplorer({"mean": models["mean"]}, QUERIES, CORPUS, RELEVANT, show_progress_bar=False)
    assert "one pooling only" in explorer.notice.value and len(explorer.bars.data[0].y) == 1
    assert explorer._static_figure().data[0].type == "bar"
    with pytest.raises(ValueError, match="one model"):
        RankingExplorer({}, QUERIES, CORPUS, RELEVANT)
    with pytest.raises(ValueError, match="names row 99"):
        RankingExplorer(models, QUERIES[:1], CORPUS, [99])


def test_columns_of_pandas(explorer, models):
    columns = (pd.Series(column).set_axis([1] * len(column)) for column in (QUERIES, CORPUS, RELEVANT))
    other = RankingExplorer(models, *columns, k=2, show_progress_bar=False)
    assert other.flips == explorer.flips and other.sets["all"].queries == QUERIES


def test_static_twin(explorer, ranks):
    assert explorer._repr_mimebundle_()["application/vnd.plotly.v1+json"]["layout"]["updatemenus"]
    figure = explorer._static_figure()
    assert [len(trace.x) // 3 for trace in figure.data[1:3]] == [len(rows) for rows in flipped(ranks, "mean", "max", 2)]

"""Explorer of rankings under several poolings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import ipywidgets as w
import numpy as np
import plotly.graph_objects as go
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from st_vi.evaluation.distinct import encode_distinct
from st_vi.inspection.false_negatives import suspected_false_negatives, word_overlaps
from st_vi.inspection.flips import Flips, find_flips, margins_without_syllables, syllable_effects
from st_vi.inspection.rankings import (
    RetrievalSet,
    cosine_matrix,
    document_ranks,
    recall_at_k,
    recall_difference,
    relevant_ranks,
    top_k_margins,
)
from st_vi.stock.figures import LiveFigure
from st_vi.viz.ranks import rank_slopes, rank_slopes_by_pair, recall_bars
from st_vi.viz.theme import COLOURS
from st_vi.viz.widgets.explorer import NONE, Explorer, beside, wrapping
from st_vi.viz.widgets.ranking_cards import flips_card, short, suspects_card, syllables_card, top_documents_card


class RankingExplorer(Explorer):
    """Compare the rankings of several poolings, and find the syllables that cause the differences.

    All texts are encoded once, when the explorer is created. After that, only variants of a selected query without each
    of its syllables are encoded, in one small batch for each of the two poolings.

    Args:
        models: Name of a pooling to its model.
        queries: Q texts.
        corpus: N different texts.
        relevant: For each query, the row of the document that answers it.
        variants: Name of a filter to another `RetrievalSet`, such as queries without diacritics or a corpus with
            negated distractors (`RetrievalSet.with_queries`, `.with_distractors`). A variant without queries shows a
            notice.
        prompt_name: Name of the prompt for queries; documents have none.
        k: Initial cutoff.
        batch_size: Texts per batch.
        show_progress_bar: Show the progress of encoding.

    Attributes:
        slopes: Figure of the ranks of all relevant documents, or of the top documents of the selected query.
        bars: Figure of the recall@k of every pooling.
        flips: Result of `find_flips` for the two poolings.

    Raises:
        ValueError: There is no model or no query, or queries and documents do not match.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from st_vi.viz import RankingExplorer
        >>> poolings = {"equal": BoW(["mưa", "nắng", "to"]), "rain": BoW(["mưa", "nắng", "to"], {"mưa": 9.0})}
        >>> models = {name: SentenceTransformer(modules=[pooling], device="cpu") for name, pooling in poolings.items()}
        >>> RankingExplorer(models, ["mưa nắng to"], ["nắng to", "mưa nắng"], [1], k=1, show_progress_bar=False).flips
        Flips(only_a=[], only_b=[0])
    """

    def __init__(
        self,
        models: Mapping[str, SentenceTransformer],
        queries: Sequence[str],
        corpus: Sequence[str],
        relevant: Sequence[int],
        variants: Mapping[str, RetrievalSet] | None = None,
        prompt_name: str | None = None,
        k: int = 5,
        batch_size: int = 32,
        show_progress_bar: bool = True,
    ) -> None:
        self.sets = {"all": RetrievalSet(queries, corpus, relevant), **(variants or {})}
        if not models or not self.sets["all"].queries:
            raise ValueError("there must be at least one model and one query")
        self.models, self.prompt_name = dict(models), prompt_name
        self._encode(batch_size, show_progress_bar)
        # One filter at a time, to save memory.
        self._matrices = lru_cache(maxsize=1)(self._cosines_and_overlaps)
        names = list(models)
        wide = {"style": {"description_width": "90px"}, "layout": w.Layout(width="auto")}
        self.pooling_a = w.Dropdown(options=names, description="pooling A")
        self.pooling_b = w.Dropdown(options=names, value=names[min(1, len(names) - 1)], description="pooling B")
        self.filter = w.Dropdown(options=list(self.sets), description="filter")
        self.k = w.IntSlider(k, 1, max(50, k), description="k")
        self.margin = w.FloatSlider(0, min=0, max=0.5, step=0.01, description="margin")
        self.query = w.Dropdown(options=[("all queries", NONE)], description="query", **wide)
        self.only_flipped = w.Checkbox(False, description="only flipped queries", indent=False)
        self.flips = Flips([], [])
        self.slopes = rank_slopes({"A": [], "B": []}, [], 1, {"a": [], "b": [], "relevant": []})
        self.bars = recall_bars({}, k, chance=0.0, height=460)
        self.summary, self.details, self.suspects = w.HTML(), w.HTML(), w.HTML()
        super().__init__([], self._static_figure)
        self._choosing = False
        for control in (self.pooling_a, self.pooling_b, self.filter, self.k, self.margin, self.only_flipped):
            self.on_change(control, self.update)
        self.on_change(self.query, lambda: None if self._choosing else self.update())
        self.guarded(self.update)
        self.slopes, self.bars = LiveFigure(self.slopes), LiveFigure(self.bars)  # sent to the page complete
        controls = [wrapping(self.pooling_a, self.pooling_b, self.filter), wrapping(self.k, self.margin)]
        cards = [self.summary, beside(self.slopes, self.bars), self.details, self.suspects]
        self.children = [self.notice, *controls, self.only_flipped, self.query, *cards]

    def _encode(self, batch_size: int, show_progress_bar: bool) -> None:
        """Encode every distinct text once per model: `self.embedded[pooling][filter]` is (queries, corpus)."""
        options: dict[str, Any] = {"batch_size": batch_size, "show_progress_bar": show_progress_bar}
        queries, documents = ([getattr(rows, name) for rows in self.sets.values()] for name in ("queries", "corpus"))
        self.embedded: dict[str, dict[str, tuple[Tensor, Tensor]]] = {}
        for name, model in self.models.items():
            asked = encode_distinct(model, *queries, prompt_name=self.prompt_name, **options)
            found = encode_distinct(model, *documents, **options)
            pairs = zip(map(torch.from_numpy, asked), map(torch.from_numpy, found), strict=True)
            self.embedded[name] = dict(zip(self.sets, pairs, strict=True))

    def _cosines_and_overlaps(self, key: str) -> tuple[dict[str, Tensor], np.ndarray]:
        rows = self.sets[key]
        matrices = {name: cosine_matrix(*embedded[key]) for name, embedded in self.embedded.items()}
        return matrices, word_overlaps(rows.corpus, rows.relevant)

    def update(self) -> None:
        """Redraw everything according to the controls."""
        rows, k, a, b = self.sets[self.filter.value], self.k.value, self.pooling_a.value, self.pooling_b.value
        if not rows.queries:
            self._refuse(f"no query passes the filter {self.filter.value!r}; choose another filter")
        if k > len(rows.corpus):
            self._refuse(f"k = {k} is more than the {len(rows.corpus)} documents of the corpus; choose a smaller k")
        matrices, overlaps = self._matrices(self.filter.value)
        ranks = {name: relevant_ranks(matrix, rows.relevant) for name, matrix in matrices.items()}
        recalls = {name: recall_at_k(of_pooling, k) for name, of_pooling in ranks.items()}
        colours = [{a: COLOURS[0], b: COLOURS[1]}.get(name, "#8c8c8c") for name in ranks]
        bars = recall_bars(recalls, k, k / len(rows.corpus), colours)
        if a == b:
            only = "there is one pooling only" if len(ranks) == 1 else f"both poolings are {a}"
            self._refuse(f"{only}: nothing to compare; two different poolings are needed", bars)
        self.redraw(self.bars, bars)

        margins = [top_k_margins(matrices[name], rows.relevant, k) for name in (a, b)]
        self.flips = find_flips(margins[0], margins[1], self.margin.value)
        self._offer_queries(rows)
        self.summary.value = flips_card(a, b, k, self.flips, recall_difference(ranks[a], ranks[b], k))
        row = None if self.query.value == NONE else self.query.value
        if row is None:
            groups = {f"only {a} finds it": self.flips.only_a, f"only {b} finds it": self.flips.only_b}
            title = "rank of the relevant document, a line for each query"
            slopes = rank_slopes({a: ranks[a], b: ranks[b]}, rows.queries, k, groups, "other queries", title)  # type: ignore[dict-item]
            self.details.value = ""
        else:
            slopes = self._documents(rows, row, {name: matrices[name][row] for name in (a, b)})
            self.details.value = self._causes(rows, row, matrices)
        self.redraw(self.slopes, slopes)
        of = slice(None) if row is None else slice(row, row + 1)
        suspects = suspected_false_negatives(
            [matrix[of] for matrix in matrices.values()], rows.relevant[of], overlaps[of], self.margin.value, k=k
        )
        self.suspects.value = suspects_card(suspects, rows, first_query=row or 0)
        if self.only_flipped.value and not self.flips.only_a + self.flips.only_b:
            self.show_notice("no query is flipped at this k and margin; a smaller margin finds more")

    def _refuse(self, why: str, bars: go.Figure | None = None) -> None:
        """Clear the outdated results, and show why there are none."""
        self.flips = Flips([], [])
        for card in (self.summary, self.details, self.suspects):
            card.value = ""
        self.redraw(self.slopes, rank_slopes({"A": [], "B": []}, []))
        self.redraw(self.bars, bars or recall_bars({}, self.k.value))
        raise ValueError(why)

    def _offer_queries(self, rows: RetrievalSet) -> None:
        """Fill the menu with all queries, or the flipped ones; keep the selection if possible."""
        flipped = sorted(self.flips.only_a + self.flips.only_b)
        offered = flipped if self.only_flipped.value else range(len(rows.queries))
        options = [("all queries", NONE), *((f"{row}: {short(rows.queries[row], 110)}", row) for row in offered)]
        chosen = self.query.value if self.query.value in offered else NONE
        if options != list(self.query.options) or chosen != self.query.value:
            self._choosing = True  # new options briefly select the first
            self.query.options = options
            self.query.value = chosen
            self._choosing = False

    def _documents(self, rows: RetrievalSet, row: int, scores: dict[str, Tensor]) -> go.Figure:
        """Slopes of the top documents under either pooling."""
        k, (a, b) = self.k.value, scores
        ranks = {name: document_ranks(of_pooling[None])[0].numpy() for name, of_pooling in scores.items()}
        right = rows.relevant[row]
        first = np.flatnonzero(np.minimum(ranks[a], ranks[b]) <= max(k, 10))
        shown = [right, *(document for document in first.tolist() if document != right)]
        inside_a, inside_b = (ranks[name][shown] <= k for name in (a, b))
        groups = {
            f"first {k} under {a} only": (np.flatnonzero((inside_a & ~inside_b)[1:]) + 1).tolist(),
            f"first {k} under {b} only": (np.flatnonzero((inside_b & ~inside_a)[1:]) + 1).tolist(),
            "relevant document": [0],
        }
        texts = [rows.corpus[document] for document in shown]
        title = f"documents for query {row}, a line each"
        return rank_slopes({name: ranks[name][shown] for name in (a, b)}, texts, k, groups, "other documents", title)  # type: ignore[misc]

    def _causes(self, rows: RetrievalSet, row: int, matrices: dict[str, Tensor]) -> str:
        """The syllables on which the two poolings differ, and the top documents of each."""
        names, k, key = (self.pooling_a.value, self.pooling_b.value), self.k.value, self.filter.value
        query, right = rows.queries[row], rows.relevant[row]
        first = {name: matrices[name][row].topk(min(k, 5)).indices.tolist() for name in names}
        card = top_documents_card(first, rows.corpus, right)
        if k == len(rows.corpus):  # all documents are in the top k for any query
            return card
        margins = [
            margins_without_syllables(self.models[name], query, self.embedded[name][key][1], right, k, self.prompt_name)
            for name in names
        ]
        return syllables_card(query, syllable_effects(query, *margins), self._finder(row), k) + card

    def _finder(self, row: int) -> str | None:
        """The pooling that finds the document of the query, if exactly one does."""
        if row in self.flips.only_a:
            return self.pooling_a.value
        return self.pooling_b.value if row in self.flips.only_b else None

    def _static_figure(self) -> go.Figure:
        """All queries, with a button for each pair of poolings; for a single pooling, its recall."""
        rows, k = self.sets["all"], self.k.value
        ranks = {
            name: relevant_ranks(cosine_matrix(*embedded["all"]), rows.relevant)
            for name, embedded in self.embedded.items()
        }
        if len(ranks) > 1:
            return rank_slopes_by_pair(ranks, rows.queries, k)  # type: ignore[arg-type]
        return recall_bars({name: recall_at_k(of_pooling, k) for name, of_pooling in ranks.items()}, k)

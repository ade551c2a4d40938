"""Text cards of the ranking explorer, as HTML."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from html import escape

from st_vi.inspection.false_negatives import Suspect
from st_vi.inspection.flips import Flips, SyllableEffect
from st_vi.inspection.rankings import Estimate, RetrievalSet

CARD = "background:#ffffff;color:#1a1a1a;padding:6px 10px;margin:2px 0;line-height:1.5"
CELL = "text-align:left;vertical-align:top;padding:2px 10px 2px 0;color:#1a1a1a;background:#ffffff;white-space:normal"
RIGHT = "background:#d9f2e6;color:#003d29"


def short(text: str, width: int = 70) -> str:
    """The text shortened to one line of about this width."""
    return textwrap.shorten(text, width, placeholder=" …")


def flips_card(a: str, b: str, k: int, flips: Flips, difference: Estimate) -> str:
    """The number of queries that only one pooling answers, and whether the difference is significant."""
    counts = f"<b>{len(flips.only_a)}</b> only under {escape(a)}, <b>{len(flips.only_b)}</b> only under {escape(b)}"
    return _card(
        "st-vi-flips",
        f"Queries that find their document in the first {k}: {counts}.<br>recall@{k} of {escape(a)} minus {escape(b)}, "
        f"95% paired bootstrap: {difference}",
    )


def syllables_card(query: str, effects: Sequence[SyllableEffect], finder: str | None, k: int) -> str:
    """The query with each syllable coloured by the effect of leaving it out; those that undo the flip are framed."""
    if not effects:
        return _card("st-vi-syllables", "The query is a single syllable; there is nothing to leave out.")
    strongest = max(abs(effect.effect) for effect in effects) or 1.0
    chips = [
        _chip(effect, strongest, framed=effect.undoes and finder is not None)
        for effect in sorted(effects, key=lambda effect: effect.position)
    ]
    first, undoing = effects[0], [effect for effect in effects if effect.undoes]
    name = f"“{escape(first.syllable.strip('.,;:!?…“”'))}”"
    if finder is None:
        said = f"This query is not flipped at k = {k} and this margin."
    elif undoing:
        said = (
            f"Only {escape(finder)} finds its document. Leaving out any one of the framed syllables ({len(undoing)}) "
            f"undoes that; the strongest is {name}."
        )
    else:
        said = f"Only {escape(finder)} finds its document. Leaving out one syllable does not undo that."
    legend = (
        "Orange: without this syllable, the poolings are closer. Blue: they are further apart. "
        f"Largest effect: {name} ({first.effect:+.3f} in cosine margin)."
    )
    return _card("st-vi-syllables", f"{said}<br>{' '.join(chips)}<br><small>{legend}</small>")


def _chip(effect: SyllableEffect, strongest: float, framed: bool) -> str:
    red_green_blue = "213,94,0" if effect.effect > 0 else "0,114,178"
    frame = "#1a1a1a" if framed else "transparent"
    style = (
        f"background:rgba({red_green_blue},{0.6 * abs(effect.effect) / strongest:.2f});color:#1a1a1a;"
        f"border:2px solid {frame};border-radius:3px;padding:1px 3px;display:inline-block"
    )
    return f'<span title="{effect.effect:+.3f}" style="{style}">{escape(effect.syllable)}</span>'


def top_documents_card(first: Mapping[str, Sequence[int]], corpus: Sequence[str], relevant: int) -> str:
    """The top documents of each pooling side by side, the relevant one in green."""
    rows = [
        [f'<span style="{RIGHT if row == relevant else ""}">{place}. {escape(corpus[row])}</span>' for row in line]
        for place, line in enumerate(zip(*first.values(), strict=True), 1)
    ]
    relevant_line = f'relevant: <span style="{RIGHT}">{escape(corpus[relevant])}</span>'
    return _card("st-vi-documents", relevant_line + _table([f"first under {name}" for name in first], rows))


def suspects_card(suspects: Sequence[Suspect], rows: RetrievalSet, first_query: int = 0) -> str:
    """The first five possible false negatives, for manual review; query 0 of the suspects is row `first_query`."""
    if not suspects:
        return _card("st-vi-suspects", "No suspected false negatives.")
    lines = []
    for suspect in suspects[:5]:
        query = first_query + suspect.query
        texts = (rows.queries[query], rows.corpus[rows.relevant[query]], rows.corpus[suspect.document])
        numbers = f"{suspect.gap:+.3f}", f"{suspect.overlap:.2f}", " and ".join(suspect.reasons)
        lines.append([*map(escape, texts), *numbers])
    heads = ["query", "relevant document", "suspect", "least gap", "shared words", "because of"]
    said = (
        "<b>Suspected false negatives</b>: all poolings put them among the first k and above the relevant document "
        "(minus the margin), or they have almost its words. Judge yourself: a poor model suspects much, and one "
        "“không” turns the meaning."
    )
    return _card("st-vi-suspects", said + _table(heads, lines))


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th style="{CELL}">{escape(name)}</th>' for name in heads)
    body = "".join("<tr>" + "".join(f'<td style="{CELL}">{cell}</td>' for cell in row) + "</tr>" for row in rows)
    table = f'<table style="width:100%;min-width:34em;border-collapse:collapse"><tr>{head}</tr>{body}</table>'
    return f'<div style="overflow-x:auto;contain:inline-size">{table}</div>'  # it scrolls where the cell is narrow


def _card(name: str, content: str) -> str:
    return f'<div id="{name}" style="{CARD}">{content}</div>'

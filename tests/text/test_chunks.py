"""Chunks cover a text, keep the limit and end where sentences do."""

from __future__ import annotations

import random

import pytest

from st_vi.text.chunks import chunk_spans
from st_vi.text.sentences import sentence_spans


def words(texts):
    """Two for what stands around every text, and one a word."""
    return [2 + len(text.split()) for text in texts]


def subwords(texts):
    """Long words cost more, and the whole may cost more than its parts."""
    return [2 + sum(1 + len(word) // 3 for word in text.split()) + len(text) // 40 for text in texts]


def texts():
    random.seed(0)
    syllables = ["mưa", "nắng", "đường", "TP.", "HCM", "1.200.000", "luật", "https://vi.wikipedia.org/wiki/Ha_Noi"]
    for _ in range(60):
        pieces = [
            " ".join(random.choices(syllables, k=random.randint(1, 40))) + random.choice([". ", "!\n", ";\n- ", " "])
            for _ in range(random.randint(1, 12))
        ]
        yield "".join(pieces)
    yield "a" * 500
    yield "  một.  "


@pytest.mark.slow
@pytest.mark.parametrize("count", [words, subwords])
@pytest.mark.parametrize("limit", [5, 17, 60, 10_000])
def test_chunks_cover_the_text_and_keep_the_limit(count, limit):
    for text in texts():
        spans = chunk_spans(text, limit, count)
        assert max(count([text[start:end] for start, end in spans])) <= limit
        ends = [0, *(end for _, end in spans), len(text)]
        between = [
            text[end:start] for end, start in zip(ends, [*(start for start, _ in spans), len(text)], strict=False)
        ]
        assert not "".join(between).strip()
        assert all(start < end for start, end in spans) and sorted(spans) == spans


def test_a_chunk_is_as_many_whole_sentences_as_fit():
    text = "Trời mưa to. Đường ngập. Học sinh được nghỉ học cả ngày. Vui quá! Hết."
    sentences = [text[start:end] for start, end in sentence_spans(text)]
    for limit in range(9, 20):
        expected: list[str] = []
        for sentence in sentences:
            if expected and len(f"{expected[-1]} {sentence}".split()) + 2 <= limit:
                expected[-1] += f" {sentence}"
            else:
                expected.append(sentence)
        assert [text[start:end] for start, end in chunk_spans(text, limit, words)] == expected


def test_a_sentence_that_does_not_fit_begins_a_chunk_and_is_cut_between_words():
    text = "Ngắn thôi. Và " + " ".join(f"từ{i}" for i in range(20)) + ". Sau đó."
    found = [text[start:end] for start, end in chunk_spans(text, 10, words)]
    assert found[0] == "Ngắn thôi."
    assert " ".join(found).split() == text.split()
    assert found[-1] == "từ15 từ16 từ17 từ18 từ19. Sau đó."


def test_no_room():
    with pytest.raises(ValueError, match="pieces of 2 leave no room for a text: an empty one has 2"):
        chunk_spans("Mưa.", 2, words)
    with pytest.raises(ValueError, match="no room for the character 'M'"):
        chunk_spans("Mưa.", 3, lambda texts: [9 if text else 0 for text in texts])
    assert chunk_spans("", 3, words) == []

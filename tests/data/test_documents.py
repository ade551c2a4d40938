"""Texts and questions of documents."""

from __future__ import annotations

from collections import Counter

import pytest
from datasets import Dataset

from st_vi.data.documents import SHARES, document_contradictions, document_questions, document_texts
from st_vi.text.questions import sentences

TEXT = (
    "Chợ {n} họp từ năm 1932 bên bờ sông Trà, cách huyện lỵ chừng bảy cây số về phía đông. "
    "Người bán ở chợ {n} đến từ 12 xã quanh vùng, phần lớn đi bằng thuyền từ lúc trời chưa sáng. "
    "Món bánh lá của {n} được làm từ bột gạo mới, gói bằng lá dong rồi hấp suốt hai giờ liền. "
    "Đến phiên cuối năm, cả chợ {n} bày hoa và câu đối, trẻ con được mẹ mua cho áo mới."
)
NAMES = ["Cây Đa", "Bến Đò", "Đồng Vạc", "Cầu Lim", "Hồ Súng", "Phú Sa", "Mai Lĩnh", "Thiên Quang"]


def documents(**columns) -> Dataset:
    rows = [{"title": f"chợ {n.lower()}", "section": s, "text": TEXT.format(n=n)} for n in NAMES for s in ("", "Bánh")]
    return Dataset.from_list([row | columns for row in rows])


def test_texts_are_of_all_kinds_and_none_repeats():
    drawn = document_texts(documents(), 10_000)
    assert len(drawn) == len(set(drawn))
    found = {sentence for n in NAMES for sentence in sentences(TEXT.format(n=n))}
    assert found & set(drawn)
    assert "chợ cây đa, Bánh" in drawn and "chợ cây đa" in drawn
    assert any(text.endswith("?") for text in drawn) and any(text.count(". ") > 1 for text in drawn)
    assert document_texts(documents(), 10_000) == drawn != document_texts(documents(), 10_000, seed=1)
    few = document_texts(documents(), 20)
    assert 10 <= len(few) <= 21


@pytest.mark.parametrize("form", [list, Dataset.to_pandas])
def test_documents_in_other_forms(form):
    rows, expected = form(documents(section=None)), documents(section="")
    for drawn in (document_texts, document_questions, document_contradictions):
        assert list(drawn(rows, 20)) == list(drawn(expected, 20))


def test_alike_texts_are_left_out():
    rows = [
        {"title": f"{i}", "text": f"Tiểu hành tinh số {i} quay quanh mặt trời trong {i % 7} năm liền."}
        for i in range(90)
    ]
    kinds = Counter(text.startswith("Tiểu") for text in document_texts(Dataset.from_list(rows), 1000))
    assert kinds[True] == 2  # one sentence but for its numbers, and its clause
    kinds = document_texts(Dataset.from_list(rows), 1000, shares={"clause": 1.0})
    assert len(kinds) == 1
    assert sum(SHARES.values()) == pytest.approx(1.0)


def test_questions_find_their_paragraph_and_stand_by_document():
    rows = document_questions(documents(), 100)
    assert set(rows.column_names) == {"anchor", "positive", "document", "kind"}
    assert set(Counter(rows["document"]).values()) == {2} and len(rows) > 12
    changes = sum(a != b for a, b in zip(rows["document"], rows["document"][1:], strict=False))
    assert changes == len(set(rows["document"])) - 1  # one document after the other
    assert {"question", "title"} <= set(rows["kind"])
    for row in rows:
        assert row["document"].split()[-1] in row["positive"].lower()
        assert len(row["positive"]) <= 640 and row["anchor"] != row["positive"]
        if row["kind"] == "sentence":
            assert row["anchor"][:30].lower() in TEXT.format(n=row["document"].title().removeprefix("Chợ ")).lower()
    assert len(document_questions(documents(), 5)) == 5
    by_subject = document_questions(documents(subject="Chợ quê"), 100, per_document=4)
    assert set(by_subject["document"]) == {"Chợ quê"} and len(by_subject) <= 4


def test_a_clause_and_its_contradiction():
    rows = document_contradictions(documents(), 30)
    assert 5 < len(rows) <= 30 and rows.column_names == ["anchor", "positive", "negative"]
    assert document_contradictions(documents(), 30)[:] == rows[:]
    for row in rows:
        assert row["positive"].lower().strip(".") in row["anchor"].lower()
        assert row["negative"] != row["positive"]
        words, other = row["positive"].lower().split(), row["negative"].lower().split()
        if len(words) == len(other):  # a number, or "đã" and "chưa"
            assert sum(a != b for a, b in zip(words, other, strict=True)) == 1
        else:
            assert len({"không", "chưa", "chẳng"} & set(words + other)) > 0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "Có."}, "missing column 'title'"),
        ({"title": "Chợ"}, "missing column 'text'"),
        ({"title": "Chợ", "text": " "}, "column 'text', row 0: expected non-empty text"),
        ({"title": None, "text": "Có."}, "column 'title', row 0"),
    ],
)
def test_bad_documents(row, message):
    for make in (document_texts, document_questions, document_contradictions):
        with pytest.raises(ValueError, match=message):
            make(Dataset.from_list([row]), 10)

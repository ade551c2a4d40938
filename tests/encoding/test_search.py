"""Search by meaning, by words and by both, over files of every kind; what has been encoded is kept."""

from __future__ import annotations

import gzip
import inspect
import json
import logging
import math
import os
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from unicodedata import normalize

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import BoW
from sentence_transformers.util import semantic_search
from typer.testing import CliRunner

from st_vi.__main__ import app
from st_vi.encoding.search import Passage, SearchIndex, read_passages
from st_vi.encoding.search.vectors import KEY_BYTES, VectorStore
from st_vi.encoding.search.words import WordIndex
from st_vi.text import strip_diacritics

TEXTS = [
    "Thủ tục ly hôn tại tòa án nhân dân quận",
    "Thuế nhà đất phải nộp trước tháng mười",
    "Giá vé xe buýt số 8 là bảy nghìn đồng",
    "Tòa nhà quận có thang máy",
    "Hoà giải trước khi ra toà",
]
TITLES = ["Ly hôn", "", "Giá vé", "Ly hôn", ""]
WORDS = sorted({word for text in TEXTS for word in re.findall(r"\w+", text.lower())})


def passages(texts=TEXTS):
    return [Passage(text, "", "luật.txt", f"line {number}") for number, text in enumerate(texts, 1)]


def count(texts):
    return [len(text.split()) for text in texts]


class Counting(SentenceTransformer):
    """Counts the texts that it encodes."""

    encoded = 0

    def encode(self, sentences, **kwargs):
        self.encoded += 1 if isinstance(sentences, str) else len(sentences)
        return super().encode(sentences, **kwargs)


@pytest.fixture
def model():
    return Counting(modules=[BoW(WORDS)], device="cpu")


@pytest.fixture
def with_words():
    pytest.importorskip("bm25s", reason='needs pip install "st-vi[search]"')


def bm25(texts, query, k1=1.5, b=0.75):
    """Lucene's BM25, as a loop."""
    documents = [Counter(re.findall(r"\w+", text)) for text in texts]
    mean = sum(sum(document.values()) for document in documents) / len(documents)
    scores = []
    for document in documents:
        score, length = 0.0, sum(document.values())
        for word in re.findall(r"\w+", query):
            having = sum(word in other for other in documents)
            idf = math.log(1 + (len(documents) - having + 0.5) / (having + 0.5))
            score += idf * document[word] / (document[word] + k1 * (1 - b + b * length / mean))
        scores.append(score)
    return scores


@pytest.mark.usefixtures("with_words")
@pytest.mark.parametrize("query", ["thuế nhà", "THUE NHA", "xe buýt xe buýt", "quận", "không có"])
def test_words_are_bm25(query):
    plain = strip_diacritics(query) == query
    texts = [strip_diacritics(text) if plain else text for text in TEXTS]
    texts = [text.lower().replace("tòa", "toà") for text in texts]
    np.testing.assert_allclose(WordIndex(TEXTS).scores(query), bm25(texts, query.lower()), rtol=1e-5)


@pytest.mark.usefixtures("with_words")
def test_a_query_without_diacritics_and_another_spelling_of_the_tone():
    index = SearchIndex(passages())
    assert index.search("thu tuc ly hon")[0].passage.place == "line 1"
    assert {found.passage.place for found in index.search("toà")} == {"line 1", "line 4", "line 5"}
    assert index.search("zebra") == []


@pytest.mark.usefixtures("with_words")
def test_single_words_of_a_query_without_diacritics():
    """A text seldom has them so; but "hai" is a word of its own."""
    words = WordIndex(["Thủ tục ly hôn", "Hai thư viện", "Hải sản tươi", "Tuc"] + ["Tục ngữ"] * 20)
    np.testing.assert_array_equal(words.scores("thủ tuc ly hon"), words.scores("thủ") + words.scores("tuc ly hon"))
    assert np.flatnonzero(words.scores("hai thư")).tolist() == [1]
    assert np.flatnonzero(words.scores("hai")).tolist() == [1, 2]  # nothing says that it is typed with diacritics


def test_a_query_in_capitals(model):
    """Models read capitals badly; a single word may be an abbreviation."""
    index, seen = SearchIndex(passages(), model), []
    index._encoder.encode = lambda text, **settings: seen.append(text) or np.ones(model[0].get_embedding_dimension())
    for query in ("THỦ TỤC LY HÔN?", "UBND", "Thủ tục ở UBND"):
        index.search(query)
    assert seen == ["thủ tục ly hôn?", "UBND", "Thủ tục ở UBND"]


@pytest.mark.filterwarnings("error::RuntimeWarning")  # numpy's, of a mean of no titles
def test_both_sides_are_standardised_and_added(model):
    index = SearchIndex(passages(), model)
    query = "tòa nhà quận"
    found = {row.passage.place: row.score for row in index.search(query, top=10)}
    vectors = model.encode(TEXTS)
    cosines = model.similarity(model.encode([query]), vectors)[0].numpy()
    words = np.array(bm25([text.lower().replace("tòa", "toà") for text in TEXTS], query.replace("tòa", "toà")))
    expected = sum((side - side.mean()) / side.std() for side in (cosines, words))
    assert found == pytest.approx({f"line {n}": value for n, value in enumerate(expected, 1)}, abs=1e-4)
    best = index.search(query)[0]
    assert (best.by_vectors, best.by_words) == (1, 1)
    assert index.search(query, side="vectors")[0].score == pytest.approx(cosines.max(), abs=1e-5)


@pytest.mark.usefixtures("with_words")
@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_a_title_counts_beside_its_passage(model, weight):
    """Of both sides, the weighted mean; a passage without a title has its own score."""
    titled = [Passage(text, title, "", str(n)) for n, (text, title) in enumerate(zip(TEXTS, TITLES, strict=True))]
    index, query = SearchIndex(titled, model, title_weight=weight), "ly hôn tại quận, giá bao nhiêu"
    searched = [passage.searched for passage in titled]
    one = model.encode([query], normalize_embeddings=True)[0]
    distinct = list(dict.fromkeys(filter(None, TITLES)))  # a title of many passages is one text
    scores = {
        "vectors": [model.encode(texts, normalize_embeddings=True) @ one for texts in (searched, distinct)],
        "words": [WordIndex(texts).scores(query) for texts in (searched, distinct)],
    }
    for side, (passages, titles) in scores.items():
        found = {int(row.passage.place): row.score for row in index.search(query, top=len(TEXTS), side=side)}
        assert len(found) >= 3
        for place, score in found.items():
            own = passages[place]
            if title := TITLES[place]:
                own = (own + weight * titles[distinct.index(title)]) / (1 + weight)
            assert score == pytest.approx(own, abs=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_the_better_of_passage_and_title_is_added(model, weight):
    """On each side of hybrid search, to the mean; titles are standardised among the titles of candidates."""

    def standardised(scores):
        mean = sum(scores) / len(scores)
        deviation = math.sqrt(sum((score - mean) ** 2 for score in scores) / len(scores))
        return [(score - mean) / deviation for score in scores]

    titled = [Passage(text, title, "", str(n)) for n, (text, title) in enumerate(zip(TEXTS, TITLES, strict=True))]
    query, distinct = "ly hôn tại quận, giá bao nhiêu", ["Ly hôn", "Giá vé"]
    one = model.encode([query], normalize_embeddings=True)[0]
    sides = []
    for scores in (
        lambda texts: [float(vector @ one) for vector in model.encode(texts, normalize_embeddings=True)],
        lambda texts: [float(score) for score in WordIndex(texts).scores(query)],
    ):
        own, of_title = (
            scores([passage.searched for passage in titled]),
            dict(zip(distinct, scores(distinct), strict=True)),
        )
        titles = [of_title.get(title) for title in TITLES]
        alone = iter(standardised([title for title in titles if title is not None]))
        means, better = [], []
        for score, title, standard in zip(own, titles, standardised(own), strict=True):
            means.append(score if title is None else (score + weight * title) / (1 + weight))
            better.append(standard if title is None else max(standard, next(alone)))
        both = [mean + best for mean, best in zip(standardised(means), better, strict=True)]
        sides.append(standardised(both if weight else means))
    expected = {number: sum(side) for number, side in enumerate(zip(*sides, strict=True))}
    index = SearchIndex(titled, model, title_weight=weight)
    found = {int(row.passage.place): row.score for row in index.search(query)}
    assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf])
def test_no_such_weight(weight):
    with pytest.raises(ValueError, match="title_weight must be a finite number"):
        SearchIndex(passages(), title_weight=weight)


@pytest.mark.usefixtures("with_words")
def test_ten_results_as_stock_gives():
    texts = [f"Điều {number}" for number in range(12)]
    default = inspect.signature(semantic_search).parameters["top_k"].default
    assert len(SearchIndex(passages(texts)).search("điều")) == default == 10


def test_vectors_are_kept_by_content(model, tmp_path):
    store = VectorStore(tmp_path, model)
    first = store.vectors(TEXTS)
    assert model.encoded == 5
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-3)
    moved = [TEXTS[3], "Vé xe", *TEXTS[:2], TEXTS[3]]
    again = VectorStore(tmp_path, model).vectors(moved)
    assert model.encoded == 6
    np.testing.assert_array_equal(again[[0, 2, 3, 4]], first[[3, 0, 1, 3]])
    assert len(list(store.folder.iterdir())) == 2
    VectorStore(tmp_path, model).vectors(TEXTS[:2])  # most of the rest is gone: written anew
    (kept,) = store.folder.iterdir()
    with np.load(kept) as part:
        assert len(part["keys"]) == 2
    other = Counting(modules=[BoW(WORDS[:5])], device="cpu")
    assert VectorStore(tmp_path, other).vectors(TEXTS).shape == (5, 5)  # another model's stay beside
    assert other.encoded == 5


def test_kept_vectors_are_those_of_the_default_prompt(tmp_path):
    model = Counting(modules=[BoW(WORDS)], device="cpu", prompts={"văn bản": f"{WORDS[0]} "})
    plain = VectorStore(tmp_path, model).vectors(TEXTS)
    model.default_prompt_name = "văn bản"
    found = VectorStore(tmp_path, model).vectors(TEXTS)
    assert np.abs(found - plain).max() > 0.1
    np.testing.assert_array_equal(found, VectorStore(tmp_path / "new", model).vectors(TEXTS))


def test_a_full_disk_leaves_no_part_of_a_file(model, tmp_path, monkeypatch):
    def full(file, **_):
        file.write(b"some")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    store = VectorStore(tmp_path, model)
    with pytest.raises(OSError, match="No space left"):
        store.vectors(TEXTS)
    assert not list(store.folder.iterdir())


def test_the_log_of_words_has_the_level_of_the_application(with_words, caplog):
    with caplog.at_level(logging.WARNING):
        SearchIndex(passages()).search("ly hon")
        assert not logging.getLogger("bm25s").isEnabledFor(logging.INFO)
    with caplog.at_level(logging.ERROR, "bm25s"):
        SearchIndex(passages())
        assert logging.getLogger("bm25s").level == logging.ERROR


def test_threads_share_a_folder(model, tmp_path):
    """None writes over another's vectors."""
    keys = [number.to_bytes(KEY_BYTES, "big") for number in range(60)]

    def write(some):
        for key in some:
            VectorStore(tmp_path, model).write({key: np.full(3, key[-1], np.float16)})

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(write, (keys[:20], keys[20:40], keys[40:])))
    found = VectorStore(tmp_path, model).read()
    assert found.keys() == {*keys} and all((vector == key[-1]).all() for key, vector in found.items())


def test_a_damaged_file_of_vectors_is_named(model, tmp_path):
    store = VectorStore(tmp_path, model)
    store.vectors(TEXTS)
    (part,) = store.folder.iterdir()
    whole = part.read_bytes()
    flags = whole.rindex(b"PK\x01\x02") + 8  # in the directory of the archive, of the last array
    for damaged in (whole[:50], b"", *(whole[:flags] + bytes([bit]) + whole[flags + 1 :] for bit in (0x01, 0x20))):
        part.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"{part.name} is damaged: delete it"):
            store.vectors(TEXTS)


def test_a_run_that_was_killed_goes_on(model, tmp_path, monkeypatch):
    from st_vi.encoding.search import vectors

    monkeypatch.setattr(vectors, "_AT_ONCE", 2)
    real, calls = VectorStore.write, []

    def write(self, *args):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(1)
        real(self, *args)

    monkeypatch.setattr(VectorStore, "write", write)
    with pytest.raises(KeyboardInterrupt):
        VectorStore(tmp_path, model).vectors(TEXTS)
    monkeypatch.setattr(VectorStore, "write", real)
    model.encoded = 0
    np.testing.assert_allclose(
        VectorStore(tmp_path, model).vectors(TEXTS), VectorStore(tmp_path / "new", model).vectors(TEXTS), atol=1e-3
    )
    assert model.encoded == 3 + 5


def test_what_a_killed_run_left_is_removed_when_nobody_writes_it_any_more(model, tmp_path):
    store = VectorStore(tmp_path, model)
    for name, age in (("part-old.tmp", 7200), ("part-new.tmp", 0)):
        (store.folder / name).write_bytes(b"half")
        os.utime(store.folder / name, (time.time() - age,) * 2)
    store.vectors(TEXTS)
    assert [path.name for path in store.folder.glob("*.tmp")] == ["part-new.tmp"]


def test_a_full_disk_names_the_folder(model, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    store = VectorStore(tmp_path, model)
    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match=rf"make room, or use another folder .*{store.folder.name}"):
        store.vectors(TEXTS)


def test_every_kind_of_file_in_a_folder(tmp_path):
    rows = [{"title": "Ly hôn", "text": TEXTS[0]}, {"title": "", "text": " "}, {"title": "Thuế", "text": TEXTS[1]}]
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "a.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "b.csv").write_text(f"id,noi_dung\n01,{TEXTS[2]}\n", encoding="utf-8-sig")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "c.md").write_text("# Một\n\n## Hai\nDòng một\ndòng hai\n\n# Ba\n\nCuối", encoding="utf-8")
    (tmp_path / "d.txt").write_text("Đoạn một.\n\n\n# không phải tiêu đề\n", encoding="utf-8")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "e.txt").write_text("ẩn", encoding="utf-8")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / "deep" / "d.MD.gz").write_bytes(gzip.compress("# Bốn\r\n\r\nNén\r\nlại\r\n".encode()))
    found = [(p.file, p.place, p.title, p.text) for p in read_passages(tmp_path, count)]
    assert found == [
        ("a.jsonl", "row 1", "Ly hôn", TEXTS[0]),
        ("a.jsonl", "row 3", "Thuế", TEXTS[1]),
        ("b.csv", "row 1", "", TEXTS[2]),
        ("d.txt", "line 1", "", "Đoạn một."),
        ("d.txt", "line 4", "", "# không phải tiêu đề"),
        ("deep/c.md", "line 4", "Một › Hai", "Dòng một dòng hai"),
        ("deep/c.md", "line 9", "Ba", "Cuối"),
        ("deep/d.MD.gz", "line 3", "Bốn", "Nén lại"),
    ]
    assert read_passages(tmp_path / "a.jsonl", count)[0].searched == f"Ly hôn\n{TEXTS[0]}"


def test_metadata_of_markdown_is_no_passage(tmp_path):
    """Only its title is used; two lines between which there is text are none."""
    (tmp_path / "a.md").write_text('---\ntags: [x]\ntitle: "Hỏi đáp"\n---\nMột\n\n# Hai\nBa\n', encoding="utf-8")
    (tmp_path / "b.md").write_text("---\n\nBốn\n\n---\nNăm", encoding="utf-8")
    found = [(one.text, one.title, one.place) for one in read_passages(tmp_path, count)]
    assert found[:2] == [("Một", "Hỏi đáp", "line 5"), ("Ba", "Hỏi đáp › Hai", "line 8")]
    assert [text for text, *_ in found[2:]] == ["---", "Bốn", "--- Năm"]


def test_what_a_folder_has_besides(tmp_path):
    (tmp_path / "a.ndjson").write_text(json.dumps({"text": TEXTS[0]}), encoding="utf-8")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "~$rows.xlsx").write_bytes(b"of Excel while rows.xlsx is open")
    (tmp_path / "b.pdf").write_bytes(b"%PDF")
    (tmp_path / "c.docx").write_bytes(b"PK")
    with pytest.warns(UserWarning, match=r"b\.pdf and 1 more are not searched: convert to \.txt or \.md"):
        assert [p.file for p in read_passages(tmp_path, count)] == ["a.ndjson"]
    with pytest.raises(ValueError, match=r"b\.pdf: this kind of file is not searched, but .*\.md.*: convert"):
        read_passages(tmp_path / "b.pdf", count)


def test_files_of_a_folder_that_cannot_be_read_are_left_out(tmp_path):
    """Aloud, as images are; a file that is named is an error, see below."""
    (tmp_path / "b.csv").write_text("a,b\nx,y,z\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"has no text to search; not searched: .*b\.csv, line 2: 3 fields"):
        read_passages(tmp_path, count)
    (tmp_path / "a.txt").write_text("Ly hôn.", encoding="utf-8")
    (tmp_path / "c.txt").write_bytes("Thuế đất.".encode("utf-16"))
    (tmp_path / "d.txt").symlink_to(tmp_path / "none.txt")
    with pytest.warns(UserWarning) as said:
        assert [p.file for p in read_passages(tmp_path, count)] == ["a.txt"]
    assert [re.search(r"\w\.(csv|txt)", str(one.message))[0] for one in said] == ["b.csv", "c.txt", "d.txt"]


def test_linked_folders_are_searched_once(tmp_path):
    for name in ("docs/deep", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.txt").write_text("Ly hôn.", encoding="utf-8")
    (tmp_path / "docs" / "deep" / "up").symlink_to(tmp_path / "docs")
    (tmp_path / "docs" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "docs" / "deep")
    assert [p.file for p in read_passages(tmp_path / "docs", count)] == ["deep/a.txt", "link/a.txt"]


@pytest.mark.usefixtures("with_words")
def test_every_question_of_a_file_is_answered(tmp_path):
    (tmp_path / "a.txt").write_text("Ly hôn.\n\nThuế đất.", encoding="utf-8")
    result = CliRunner().invoke(app, ["search", str(tmp_path), "--no-dense"], input="ly hôn\n\n\u200b\n?!\nthuế\n")
    assert result.exit_code == 0, result.output
    assert [line for line in result.stdout.splitlines() if "found by" not in line] == [
        *("1. Ly hôn.", "nothing found", "1. Thuế đất.")
    ]


def test_long_texts_are_cut_where_sentences_end(tmp_path):
    text = "Điều một nói về phí. Điều hai nói về hạn nộp. Điều ba nói về phạt."
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    found = read_passages(tmp_path / "a.txt", count, most_tokens=6)
    assert [p.text for p in found] == ["Điều một nói về phí.", "Điều hai nói về hạn nộp.", "Điều ba nói về phạt."]
    assert [text[p.start :][: len(p.text)] for p in found] == [p.text for p in found]


@pytest.mark.parametrize(
    ("name", "content", "column", "message"),
    [
        ("a.jsonl", '{"number": 1}', None, r"a\.jsonl: no column holds texts"),
        ("a.jsonl", '{"text": "x"}', "body", r"no column 'body' of texts; the columns of texts are \['text'\]"),
        ("a.txt", "  \n", None, "has no text to search"),
        ("a.txt", b"\xff\xfe\x00", None, r"a\.txt, line 1: not UTF-8 but UTF-16"),
        ("a.txt", bytes(range(128)), None, r"a\.txt, line 1: a NUL character"),
        ("a.md.gz", b"x", None, r"a\.md\.gz: damaged or cut short"),
    ],
)
def test_what_cannot_be_searched(tmp_path, name, content, column, message):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        read_passages(file, count, column=column)


def test_arguments(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        read_passages(tmp_path / "none", count)
    with pytest.raises(ValueError, match="has no file to search"):
        read_passages(tmp_path, count)
    pytest.importorskip("bm25s", reason='needs pip install "st-vi[search]"')
    index = SearchIndex(passages())
    for arguments, message in (
        ({"query": " "}, "empty"),
        ({"query": "\u200b"}, "empty"),
        ({"query": "a", "top": 0}, "top must be a whole number"),
        ({"query": "a", "side": "both"}, "needs a model"),
        ({"query": "a", "side": "left"}, "side must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            index.search(**arguments)
    with pytest.raises(ValueError, match="no passages"):
        SearchIndex([])


@pytest.mark.usefixtures("with_words")
def test_a_row_that_was_split_is_found_once_by_its_best_passage(model):
    long = "Thủ tục ly hôn tại tòa án. Giá vé xe buýt. Thủ tục ly hôn tại tòa án nhân dân quận."
    pieces = [Passage(part, "", "luật.csv", "row 1", long.index(part)) for part in long.split(". ")]
    others = [Passage(text, "", "luật.csv", f"row {number}") for number, text in enumerate(TEXTS[1:], 2)]
    same_row_of_another = Passage("Ly hôn tại quận", "", "khác.csv", "row 1")
    index = SearchIndex([*pieces, *others, same_row_of_another], model)
    for side in ("both", "vectors", "words"):
        found = index.search("thủ tục ly hôn tại tòa án nhân dân quận", top=20, side=side)
        places = [(one.passage.file, one.passage.place) for one in found]
        assert len(places) == len(set(places)) and places[:2] == [("luật.csv", "row 1"), ("khác.csv", "row 1")]
        assert found[0].passage == pieces[2]
    assert len(index.search("ly hôn", top=1)) == 1


def test_a_column_may_be_named_in_decomposed_letters(tmp_path):
    (tmp_path / "a.csv").write_text("văn bản,title\nTrời mưa to.,Mưa\n", encoding="utf-8")
    for name in ("văn bản", normalize("NFD", "văn bản")):
        assert [one.text for one in read_passages(tmp_path / "a.csv", count, column=name)] == ["Trời mưa to."]


def test_one_bar_stays_on_the_screen(model, tmp_path, capsys):
    (tmp_path / "luật.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    SearchIndex.of_files(tmp_path, model, kept_in=tmp_path / "kept", show_progress_bar=True)
    lines = capsys.readouterr().err.rstrip("\n").split("\n")
    assert [line.rpartition("\r")[2].partition(":")[0] for line in lines] == ["Passages"]

"""Tables of any content through adapters, splits and readers: rows that can be trained on, or an error with a name."""

from __future__ import annotations

import json
import math
from collections import Counter
from functools import cache

import datasets
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Image as ImageFeature
from hypothesis import strategies as st

from st_vi.data import (
    change_order,
    check_triplets,
    combine_rows,
    dialogues_to_rows,
    fact_check_to_triplets,
    instructions_to_rows,
    nli_to_triplets,
    ocr_to_rows,
    perturbed_negatives,
    read_rows,
    reading_comprehension_to_triplets,
    same_document_negatives,
    scored_pairs_to_rows,
    split_by_anchor,
    split_by_task,
    strip_diacritics,
    swap_negation,
    swap_number,
    vqa_to_rows,
)
from st_vi.data.audit.quality import information_from_similarities
from st_vi.data.columns import candidate_columns, clean_text, find_columns
from st_vi.data.nli import canonical_labels
from tests.helpers.fuzz import (
    INF,
    NAN,
    ODD_TEXTS,
    REFUSED,
    SENTENCES,
    fuzz,
    mostly_good_texts,
    outcome,
    quoted,
    tables,
    texts,
    unicode_texts,
)

pytestmark = pytest.mark.slow

CASES = 8_000  # with ST_VI_FUZZ=1

few_texts = st.sampled_from([*SENTENCES[:2] * 4, "  Trời  mưa ", ODD_TEXTS[15], "\0"])
nli_labels = st.sampled_from(["entailment", "Entailment ", "contradiction", "contradiction", "neutral", "other", "nei"])
conflicts = st.sampled_from(["error", "skip", "skip", "skip"])


def assert_trainable(triplets, rows_read):
    """What comes out is accepted by the check before training, and accounted for."""
    check_triplets(triplets)
    assert triplets.report["rows read"] == rows_read
    assert sum(len(part) for part in triplets.values()) == sum(triplets.report[name] for name in triplets)
    for part in triplets.values():
        assert all(0 <= weight <= 1 for weight in (part["weight"] if "weight" in part.column_names else []))


@fuzz(
    500,
    rows=tables(premise=few_texts, hypothesis=mostly_good_texts, label=nli_labels),
    neutral=st.sampled_from(["skip", "hard_negative", "weak_positive"]),
    missing_negative=st.sampled_from(["pair", "skip"]),
    conflict=conflicts,
    reverse=st.booleans(),
    labels=st.sampled_from([None, None, None, {0: "entailment", 1: "refuted"}, {0: None}, {"": "x"}, {NAN: "yes"}]),
)
def test_nli(rows, labels, **settings):
    names = [*quoted("premise", "hypothesis", "label"), "no usable pair", "labels: ", "missing column for"]
    made = outcome("triplets", lambda: nli_to_triplets(rows, labels=labels, **settings), names)
    if made is not REFUSED:
        assert_trainable(made, len(rows))


@fuzz(
    150,
    rows=tables(
        Evidence=few_texts, Statement=mostly_good_texts, verdict=st.sampled_from(["SUPPORTED", "refuted", "NEI"])
    ),
    conflict=conflicts,
)
def test_fact_checks(rows, conflict):
    names = [*quoted("Evidence", "Statement", "verdict"), "no usable pair", "missing column for"]
    made = outcome("triplets", lambda: fact_check_to_triplets(rows, conflict=conflict), names)
    if made is not REFUSED:
        assert_trainable(made, len(rows))


options = st.lists(mostly_good_texts, min_size=1, max_size=4)
TEMPLATES = (*["{question} {passage}"] * 6, "{passage}", "", "{", "{}", "{answer}", "{question.x}", "{question!r:>5}")


@fuzz(
    450,
    rows=st.one_of(
        tables(
            article=few_texts,
            question=mostly_good_texts,
            options=options,
            answer=st.sampled_from(["A", "b", "A", "a", SENTENCES[0], "ß", "İ", "Z", "AB"]),
        ),
        tables(question=mostly_good_texts, options=options, answer=st.sampled_from([0, 0, 1, -1, 9])),
        tables(
            most_rows=2,
            article=mostly_good_texts,
            questions=st.lists(mostly_good_texts, max_size=2),
            options=st.lists(options, max_size=2),
            answers=st.lists(st.sampled_from(["A", "B"]), max_size=2),
        ),
    ),
    template=st.sampled_from(TEMPLATES),
    conflict=conflicts,
)
def test_reading_comprehension(rows, template, conflict):
    fields = quoted("article", "passage", "question", "questions", "options", "answer", "answers")
    names = [*fields, "no usable pair", "missing column for", "template"]
    made = outcome("triplets", lambda: reading_comprehension_to_triplets(rows, None, template, conflict), names)
    if made is not REFUSED:
        assert_trainable(made, len(rows))


@fuzz(
    300,
    rows=tables(
        anchor=few_texts,
        positive=mostly_good_texts,
        negative=mostly_good_texts,
        document=st.sampled_from("ab"),
        weight=st.just(1.0),
    ),
    function=st.sampled_from([check_triplets, perturbed_negatives, same_document_negatives]),
)
def test_triplets(rows, function):
    fields = quoted("anchor", "positive", "negative", "document", "weight")
    made = outcome("triplets", lambda: function(rows), [*fields, "no usable pair"])
    if made is REFUSED or made is None:
        return
    if function is check_triplets:  # all rows or an error
        assert check_triplets(made).to_list() == made.to_list() and len(made) == len(rows)
    else:
        assert_trainable(made, len(rows))


@fuzz(
    500,
    values=st.lists(st.sampled_from(["Yes", " entailment", "x", "", None, "không" * 99]), max_size=5)
    | st.lists(st.sampled_from([0, 1, 2, -1, None]), max_size=5)
    | st.lists(st.sampled_from([0.0, 1.0, NAN]), max_size=5)
    | st.lists(st.sampled_from([True, False]), max_size=5)
    | st.lists(st.sampled_from([["yes"], [], None]), max_size=3),
    given_=st.sampled_from(
        [None, {0: "entailment", 1: "neutral"}, {"x": "OTHER"}, {0: 1}, {None: "neutral"}, {True: "no"}]
    ),
    names=st.sampled_from([None, None, ["entailment", "neutral"], ["x", "y", "z"]]),
)
def test_labels(values, given_, names):
    rows = Dataset.from_dict({"label": values})
    if names and all(value in (0, 1, None) and not isinstance(value, (bool, float)) for value in values):
        rows = rows.cast_column("label", ClassLabel(names=names))
    found = outcome("triplets", lambda: canonical_labels(rows, "label", given_), ["'label'", "labels: "])
    if found is not REFUSED:
        assert len(found) == len(values)
        assert set(found) <= {"entailment", "neutral", "contradiction", "other"}


images = st.sampled_from(["a.png", "b.png", None])
FORMATS = {
    scored_pairs_to_rows: {
        "sentence1": unicode_texts,
        "sentence2": mostly_good_texts,
        "score": st.sampled_from([0, 1, 5, 6]),
    },
    instructions_to_rows: {"instruction": mostly_good_texts, "input": unicode_texts, "output": unicode_texts},
    ocr_to_rows: {"image": images, "text": mostly_good_texts, "question": unicode_texts},
    vqa_to_rows: {"image": images, "question": mostly_good_texts, "answer": unicode_texts},
    dialogues_to_rows: {
        "image": images,
        "turns": st.lists(
            st.fixed_dictionaries({"question": mostly_good_texts, "answer": mostly_good_texts}), max_size=3
        ),
    },
}
RANGES = ((0, 5), (0, 5), (0, 5), (5, 0), (0, INF), (-INF, INF), (NAN, 1), (0,), (-1e308, 1e308))


@pytest.mark.parametrize("function", FORMATS, ids=lambda function: function.__name__)
def test_formats(function):
    columns = FORMATS[function]

    @fuzz(160, rows=tables(**columns), score_range=st.sampled_from(RANGES))
    def check(rows, score_range):
        arguments = (score_range,) if function is scored_pairs_to_rows else ()
        names = [*quoted(*columns), "missing column for", "score_range"]
        made = outcome("formats", lambda: function(rows, *arguments), names)
        if made is REFUSED:
            return
        expected = {"anchor", "positive", "task"} | ({"score"} if arguments else set())
        expected |= {"anchor_image"} if "image" in columns else set()
        assert set(made.column_names) == expected  # of an empty table too
        count = sum(map(len, rows["turns"])) if "turns" in columns else len(rows)
        assert len(made) == count
        assert all(text.strip() for name in ("anchor", "positive") for text in made[name])
        assert all(0 <= score <= 1 for score in (made["score"] if arguments else []))

    check()


@cache
def sets() -> tuple[Dataset, ...]:
    """Rows of tasks whose columns are of all the types that they can have."""
    rows = {"anchor": ["Con gì?", "Màu gì?"], "positive": ["Mèo.", "Đen."], "task": ["ocr", "ocr"]}
    pictures = (
        ["a.png", None],
        [None, None],
        [b"x", b"y"],
        [{"bytes": b"x", "path": None}] * 2,
        [["a.png"], []],
        [1, 2],
    )
    scores = ([0.5, NAN], [0, 1], [None, None], ["abc", "1"], [[1], []], [True, False])
    with_pictures = [Dataset.from_dict(rows | {"anchor_image": values}) for values in pictures]
    decoded = with_pictures[0].cast_column("anchor_image", ImageFeature())
    features = Features(dict.fromkeys(rows, Value("large_string")))
    return (
        *(Dataset.from_dict(rows), Dataset.from_dict(rows).select([]), Dataset.from_dict(rows, features=features)),
        *(
            *with_pictures,
            decoded,
            Dataset.from_dict({"anchor": ["a"], "positive": ["b"], "positive_image": ["c.png"]}),
        ),
        *(Dataset.from_dict(rows | {"score": values}) for values in scores),
        *(Dataset.from_dict(rows | {"negative": ["a", "b"]}), Dataset.from_dict(rows | {"anchor": [None, None]})),
        *(Dataset.from_dict(rows | {"anchor": [1, 2]}), Dataset.from_dict({})),
    )


@fuzz(250, chosen=st.lists(st.integers(0, len(sets()) - 1), max_size=3))
def test_combined_sets(chosen):
    parts = [sets()[number] for number in chosen]
    names = ["no datasets", "are in some sets alone", "are not as in the others"]
    combined = outcome("formats", lambda: combine_rows(*parts), names)
    if combined is REFUSED:
        return
    assert len(combined) == sum(map(len, parts))
    assert combined.column_names[-1] == "task" or "task" not in combined.column_names
    undecoded = combined
    if isinstance(combined.features.get("anchor_image"), ImageFeature):
        undecoded = combined.cast_column("anchor_image", ImageFeature(decode=False))
    found = undecoded["anchor_image"][:] if "anchor_image" in combined.column_names else []
    paths = [value if isinstance(value, str) else value["path"] for value in found if isinstance(value, (str, dict))]
    wanted = sum(
        part["anchor_image"][:] == ["a.png", None]
        for part in parts
        if part.features.get("anchor_image") == Value("string")
    )
    assert paths.count("a.png") >= wanted  # a path stays a path


@fuzz(
    500,
    rows=tables(anchor=unicode_texts, task=st.sampled_from(["ocr", "ocr\0", "instr", ""])),
    test_size=st.sampled_from([0.2, 0.5, 0.9, 1e-9, 0.0, 1.0, -1, NAN, INF]),
    seed=st.integers(-5, 2**70),
)
def test_splits(rows, test_size, seed):
    sides = outcome(
        "splits", lambda: split_by_anchor(rows, test_size, seed=seed), [*quoted("anchor"), "for anchor", "test_size"]
    )
    if sides is not REFUSED:
        assert sum(map(len, sides.values())) == len(rows)
        train, test = ({clean_text(text, "anchor", 0) for text in side["anchor"]} for side in sides.values())
        assert not train & test
    parts = outcome("splits", lambda: split_by_task(rows), quoted("task"))
    if parts is not REFUSED:
        assert {task: len(part) for task, part in parts.items()} == Counter(rows["task"])


JSON_VALUES = (
    *('"Trời mưa."', '""', '"\\ud83d"', '"\\u0000"', "1", "1.5", "-0", "1e999", "NaN", "Infinity", "true", "null"),
    *(
        "9007199254740993",
        "9223372036854775808",
        "1" * 40,
        "1" * 5000,
        "[]",
        '["a"]',
        "[1]",
        '["a", 1]',
        "{}",
        '{"b": 1}',
    ),
    *('{"b": [{}]}', "[" * 300 + "]" * 300, "[" * 5000, '"x', "tru", "'a'", "\ufeff1", "\\"),
)
json_lines = st.one_of(
    st.builds(
        lambda pairs: ("{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}").encode(errors="surrogatepass"),
        st.lists(
            st.tuples(st.sampled_from(['"a"', '"a"', '"b"', '""', '"\\ud800"', "a"]), st.sampled_from(JSON_VALUES)),
            max_size=2,
        ),
    ),
    *[texts.map(lambda text: json.dumps({"a": text}).encode())] * 3,
    st.sampled_from([b"", b" \t", b"[]", b"null", b"{}", b"\xff\xfe", b'{"a": "\xff"}', b"\xef\xbb\xbf{}", b"\r"]),
    st.binary(max_size=10),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of the files to read, and of what the library keeps of them."""
    folder, before = tmp_path_factory.mktemp("fuzz"), datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    yield folder
    datasets.config.HF_DATASETS_CACHE = before


def test_json_lines(folder):
    path = folder / "rows.jsonl"

    @fuzz(1200, lines=st.lists(json_lines, max_size=4))
    def check(lines):
        path.write_bytes(b"\n".join(lines))
        rows = outcome("files", lambda: read_rows(path), [str(path)])
        if rows is not REFUSED:
            written = [
                line for line in path.read_bytes().split(b"\n") if line.removeprefix(b"\xef\xbb\xbf").decode().strip()
            ]
            assert len(rows) == len(written)
            assert set(rows.column_names) == {key for line in written for key in json.loads(line.decode("utf-8-sig"))}

    check()


def test_tables_in_files(folder):
    good = Dataset.from_dict({"a": SENTENCES, "b": list(range(8))})
    good.to_parquet(folder / "good.parquet")
    parquet, csv = (folder / "good.parquet").read_bytes(), 'a,b\nx,1\n"y,\nz",2\nđ,3\n'.encode()

    @fuzz(
        120,
        suffix=st.sampled_from(["csv", "tsv", "parquet"]),
        place=st.integers(0, 200),
        cut=st.booleans(),
        junk=st.sampled_from([b"", b'"', b",,,,\n", b"\0", b"\xff", b"\n\n", b"\t", b"a" * 50]),
    )
    def check(suffix, place, cut, junk):
        data = parquet if suffix == "parquet" else csv
        path = folder / f"rows.{suffix}"
        path.write_bytes(data[:place] + junk + (b"" if cut else data[place:]))
        rows = outcome("files", lambda: read_rows(path), [str(path)])
        if rows is not REFUSED:
            assert len(rows) and rows.column_names and rows[:]

    check()


@fuzz(
    800,
    text=unicode_texts,
    seed=st.integers(0, 2**33),
    order=st.sampled_from(["swap", "within_trigrams", "trigrams", "reverse", "shuffle"]),
)
def test_perturbations(text, seed, order):
    calls = (lambda: change_order(text, order, seed=seed), lambda: swap_negation(text), lambda: swap_number(text, seed))
    for call in calls:
        changed = outcome("texts", call, ["text"])
        assert changed is None or (isinstance(changed, str) and changed != text)
    plain = outcome("texts", lambda: strip_diacritics(text), ["text"])
    assert plain == strip_diacritics(plain)


@fuzz(600, value=st.one_of(texts, st.sampled_from([None, 3, NAN, b"x", [], ["a"]])), row=st.integers(0, 9))
def test_clean_text(value, row):
    text = outcome("texts", lambda: clean_text(value, "câu", row), [f"column 'câu', row {row}"])
    if text is not REFUSED:
        assert text and text == clean_text(text, "câu", row) and len(text.split()) == len(text.split(" "))


@fuzz(
    500,
    present=st.lists(
        st.one_of(st.sampled_from(["premise", "LABEL", "positive", "negative_2", "negative_٣"]), texts),
        max_size=5,
        unique=True,
    ),
    given_=st.sampled_from([None, {}, {"label": "LABEL"}, {"label": "x"}, {"role": "premise"}]),
)
def test_columns_are_found(present, given_):
    names = ["missing column", "no role"]
    found = outcome("texts", lambda: find_columns(present, ["premise", "label"], given_, optional=["premise"]), names)
    if found is not REFUSED:
        assert set(found.values()) <= set(present) and "label" in found
    assert set(candidate_columns(present)) <= set(present)


numbers = st.sampled_from([0.0, 0.5, 0.9, -1.0, 1.0, 1e-30, NAN, INF])


@fuzz(
    500,
    positive=st.lists(numbers, max_size=3),
    negative=st.lists(st.lists(numbers.filter(math.isfinite), min_size=2, max_size=2), max_size=3),
    margin=st.sampled_from([None, 0.0, 0.05, 1.0, -1.0]),
)
def test_eci(positive, negative, margin):
    names = ["similarities", "margin"]
    found = outcome("texts", lambda: information_from_similarities(positive, negative, relative_margin=margin), names)
    if found is not REFUSED:
        assert 0 <= found.hardness <= 1 and 0 <= found.safety <= 1 and 0 <= found.score < INF


# What was found, and is mended.


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"a": "\\ud83d"}', "line 2: column 'a' cannot hold this: .*surrogates not allowed"),
        ('{"a": %s}' % (10**30), "line 2: column 'a' cannot hold this: .*too large"),
        ('{"a": %s}' % ("1" * 5000), "line 2: Exceeds the limit"),
        ('{"a": %s}' % ("[" * 100_000), "line 2: maximum recursion depth"),
        ('{"a": ["x", 1]}', "line 2: column 'a' cannot hold this"),
        ('{"\\ud83d": 1}', r"column '\\ud83d'"),
    ],
)
def test_values_that_no_column_can_hold_are_named(tmp_path, line, message):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"b": "Trời mưa."}\n' + line, "utf-8")
    with pytest.raises(ValueError, match=f"{path}(, |: ){message}"):
        read_rows(path)


def test_objects_without_keys_do_not_vanish(tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}\n{}\n")
    with pytest.raises(ValueError, match="line 1: the object is empty"):
        read_rows(tmp_path / "rows.jsonl")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", b"a,b\n1,2\n1,2,3,4\n", "line 3: 4 fields, but the header has 2"),
        ("rows.csv", b"", "the file is empty"),
        ("rows.csv", b'a,b\n"x,y\n', "line 2: quotation marks that do not match"),
        ("rows.csv", b"a,b\n", "no rows in it, only a header"),
        ("rows.parquet", b"PAR1xxxxPAR1", "Parquet file size is 12 bytes"),
        ("rows.parquet", b"", "Parquet file size is 0 bytes"),
    ],
)
def test_broken_tables_are_named(folder, name, content, message):
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{folder / name}(: |, ).*{message}"):
        read_rows(folder / name)


def reading(**columns):
    rows = {"question": ["Con gì?"], "options": [["chó", "mèo"]], "answer": ["B"]}
    return Dataset.from_dict(rows | columns)


@pytest.mark.parametrize(
    ("rows", "template", "message"),
    [
        (reading(answer=["ß"]), "{question}", "column 'answer', row 0: expected one of 2 options"),
        (reading(answer=[True]), "{question}", "column 'answer', row 0: expected one of 2 options.*got True"),
        (reading(question=[["Con gì?"]], options=[None]), "{question}", "column 'options', row 0: expected a list"),
        (reading(question=[["Con gì?"]], answer=[3]), "{question}", "column 'options', row 0: .*"),
        (reading(), "{answer}", "template may name {question} and {passage} only"),
        (reading(), "{passage}", "column 'passage', row 0: the template '{passage}' needs a text"),
    ],
)
def test_reading_comprehension_names_what_is_wrong(rows, template, message):
    with pytest.raises(ValueError, match=message):
        reading_comprehension_to_triplets(rows, template=template)


def test_labels_that_are_lists():
    rows = Dataset.from_dict({"label": [["entailment"]]})
    with pytest.raises(ValueError, match=r"column 'label', row 0: unknown label"):
        canonical_labels(rows, "label")
    with pytest.raises(ValueError, match="labels: 0 is mapped to 1"):
        canonical_labels(rows, "label", {0: 1})


def test_pictures_nobody_asks_for_are_not_opened():
    pairs = {"sentence1": ["a"], "sentence2": ["b"], "score": [1.0], "instruction": ["a"], "output": ["b"]}
    rows = Dataset.from_dict(pairs | {"photo": [b"broken"]}).cast_column("photo", ImageFeature())
    assert len(scored_pairs_to_rows(rows, (0, 1))) == len(instructions_to_rows(rows)) == 1
    broken = reading(photo=[b"broken"]).cast_column("photo", ImageFeature())
    assert reading_comprehension_to_triplets(broken)["triplets"]["positive"][:] == ["mèo"]


def test_a_score_range_without_end():
    rows = Dataset.from_dict({"sentence1": ["a"], "sentence2": ["b"], "score": [1.0]})
    with pytest.raises(ValueError, match="score_range"):
        scored_pairs_to_rows(rows, (-INF, INF))


def test_turns_that_are_texts():
    rows = Dataset.from_dict({"image": ["a.png"], "turns": [["Con gì?"]]})
    with pytest.raises(ValueError, match="column 'turns', row 0: expected a turn of question and answer, got 'Con gì"):
        dialogues_to_rows(rows)


def test_empty_sets_combine_with_others():
    empty = vqa_to_rows(Dataset.from_dict({"image": [], "question": [], "answer": []}))
    assert empty.column_names == ["anchor", "anchor_image", "positive", "task"]
    some = vqa_to_rows(Dataset.from_dict({"image": ["a.png"], "question": ["Con gì?"], "answer": ["Mèo."]}))
    for order in ((some, empty), (empty, some)):
        assert combine_rows(*order)["anchor_image"][:] == ["a.png"]


def test_pictures_in_several_forms_combine_in_any_order():
    """Without images in the last set none combined, and a path beside bytes became the bytes of its name."""
    path, none, raw = (
        vqa_to_rows(Dataset.from_dict({"image": [image], "question": ["Con gì?"], "answer": ["Mèo."]}))
        for image in ("a.png", None, b"x")
    )
    for order in ((path, none), (none, path)):
        assert sorted(map(str, combine_rows(*order)["anchor_image"])) == ["None", "a.png"]
    together = combine_rows(path, raw).cast_column("anchor_image", ImageFeature(decode=False))["anchor_image"][:]
    assert together == [{"bytes": None, "path": "a.png"}, {"bytes": b"x", "path": None}]


def test_columns_that_do_not_combine_are_named():
    rows = {"anchor": ["a"], "positive": ["b"], "task": ["ocr"]}
    with pytest.raises(ValueError, match=r"columns \['score'\] of set 1 are not as in the others"):
        combine_rows(Dataset.from_dict(rows), Dataset.from_dict(rows | {"score": ["nhiều"]}))
    with pytest.raises(ValueError, match="no datasets"):
        combine_rows()


def test_tasks_that_numpy_takes_for_equal():
    rows = Dataset.from_dict({"task": ["ocr", "ocr\0"]})
    assert {task: len(part) for task, part in split_by_task(rows).items()} == {"ocr": 1, "ocr\0": 1}
    with pytest.raises(ValueError, match="column 'task', row 1: expected the name of a task, got None"):
        split_by_task(Dataset.from_dict({"task": ["ocr", None]}))

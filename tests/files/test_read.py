"""Files as people have them: every row as it stands there, or an error with its line; and never the hub for a path."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import logging
import lzma
import math
import os
import re
import sys
import tracemalloc
from unicodedata import normalize
from zipfile import ZipFile

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from st_vi.data import read_rows
from st_vi.files import read
from st_vi.files.read import stream_rows


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    monkeypatch.setattr(read, "load_dataset", lambda *args, **kwargs: pytest.fail(f"looked up on the Hub: {args}"))


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def columns(path):
    return read_rows(path)[:]


def test_quotation_marks_of_a_tsv_are_text(write):
    rows = [[f"câu {number}", f"giả thuyết {number}"] for number in range(200)]
    rows[20][0], rows[150][0] = '"Đẹp', '5" và 6"'
    path = write("rows.tsv", "a\tb\n" + "".join("\t".join(row) + "\n" for row in rows))
    assert columns(path) == {"a": [a for a, _ in rows], "b": [b for _, b in rows]}


def test_a_tsv_that_was_written_with_quoting_is_said(write, caplog):
    path = write("quoted.tsv", 'a\tb\n"Nói ""đi"" rồi."\tx\n')
    with caplog.at_level(logging.WARNING):
        assert columns(path)["a"] == ['"Nói ""đi"" rồi."']
    assert "column 'a' keeps the quotation marks around 1 texts" in caplog.text


@pytest.mark.parametrize("line", ['"Mưa, gió"\tx\n', '"câu"\t"x"\n'])
def test_a_tsv_that_a_spreadsheet_quoted_is_said(write, caplog, line):
    with caplog.at_level(logging.WARNING):
        read_rows(write("quoted.tsv", f"a\tb\n{line}"))
    assert "column 'a' keeps the quotation marks around 1 texts" in caplog.text


def test_byte_order_marks_of_joined_files(write):
    part = '\ufeff"a","b"\n"Mưa, gió","1"\n'
    with pytest.raises(ValueError, match="line 3: the header once more"):
        read_rows(write("joined.csv", part + part))
    assert columns(write("cut.csv", part + '\ufeff"Nắng, nóng","2"\n'))["a"] == ["Mưa, gió", "Nắng, nóng"]
    assert columns(write("joined.jsonl", '\ufeff{"a": "Mưa"}\n\ufeff{"a": "Nắng"}\n')) == {"a": ["Mưa", "Nắng"]}
    assert columns(write("joined.txt", "\ufeffMưa\n\ufeffNắng\n")) == {"text": ["Mưa", "Nắng"]}


@pytest.mark.parametrize(("name", "layout"), [("rows.jsonl", "{}\n{}\n"), ("rows.json", "[{},\n{}]")])
def test_nan_is_a_missing_value_of_any_column(write, name, layout):
    rows = [{"image": math.nan, "score": 0.5}, {"image": "a.png", "score": math.nan}]
    path = write(name, layout.format(*map(json.dumps, rows)))
    assert columns(path) == {"image": [None, "a.png"], "score": [0.5, None]}


def test_csv_as_the_standard_library_writes_it(write):
    texts = ['Nói "đi" rồi, đi', "hai\ndòng", "", " ", "a;b", "\ttab", '"', "'", "Đ" * 200_000]
    path = write("rows.csv", "")
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text", "id"], *([text, str(number)] for number, text in enumerate(texts))])
    assert columns(path) == {"text": texts, "id": [str(number) for number in range(len(texts))]}


def test_text_stays_text(write):
    values = ["007", "NA", "null", "None", "nan", "", "TRUE", "1e5", "2024-01-02", "1.0", "-", "#N/A", "0x1F", "1_000"]
    assert columns(write("rows.csv", "a,b\n" + "".join(f"{value},x\n" for value in values)))["a"] == values
    assert columns(write("rows.tsv", "a\tb\n" + "".join(f"{value}\tx\n" for value in values)))["a"] == values
    lines = "".join(json.dumps({"a": value}) + "\n" for value in values)
    assert columns(write("rows.jsonl", lines))["a"] == values


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_what_spreadsheets_save(write, mark):
    content = mark.join(["premise", " nhãn "]) + "\r\n\r\n" + mark.join(['"Mưa, gió; bão"', "0"]) + "\r\n"
    assert columns(write("rows.csv", "\ufeff" + content)) == {"premise": ["Mưa, gió; bão"], "nhãn": ["0"]}


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("before", ["", "\n\n"])
def test_a_first_line_that_names_the_separator(write, mark, before):
    lines = [f"sep={mark}", mark.join(["câu, vế; một", "b"]), mark.join(["Mưa", "4.5"])]
    content = before + "\r\n".join(lines)
    if mark in ",;":
        content = content.replace("câu, vế; một", '"câu, vế; một"')
    assert columns(write("rows.csv", content)) == {"câu, vế; một": ["Mưa"], "b": ["4.5"]}
    if mark == "\t":
        assert columns(write("rows.tsv", content)) == {"câu, vế; một": ["Mưa"], "b": ["4.5"]}
    with pytest.raises(ValueError, match="line 6: 1 fields" if before else "line 4: 1 fields"):
        read_rows(write("bad.csv", content + "\r\nx\r\n"))


@pytest.mark.parametrize(("name", "mark"), [("rows.csv", ","), ("rows.csv", ";"), ("rows.tsv", "\t")])
def test_rows_of_empty_cells_are_blank_lines(write, name, mark):
    lines = [["a", "b", "c"], ["", "", ""], ["x", "", "1"], [" ", "", ""], ["", "", "", ""]]
    path = write(name, "\n".join(mark.join(line) for line in lines))
    assert columns(path) == {"a": ["x"], "b": [""], "c": ["1"]}


@pytest.mark.parametrize(
    ("name", "texts", "lost"),
    [
        ("rows.csv", ["Tr?i m?a to.", "Ngày mai"], True),
        ("rows.csv", ["Tr\ufffdi m\ufffda to.", "Ngày mai"], True),
        ("rows.txt", [text.encode().decode("latin-1") for text in ("Trời mưa.", "Ông ấy")], True),
        ("rows.jsonl", ["Trời mưa".encode().decode("cp1252", "replace"), "Ngày mai"], True),
        ("rows.csv", ["Trời mưa à? Ừ.", "Xem a.vn/x?y=1", *["Trời nắng."] * 20], False),
        ("rows.csv", ["«Má»", "Æ", "Ä"], False),
    ],
)
def test_letters_that_an_encoding_lost_are_said(write, caplog, name, texts, lost):
    if name.endswith("jsonl"):
        content = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    else:
        content = "\n".join([*(["text"] if name.endswith("csv") else []), *texts])
    with caplog.at_level(logging.WARNING):
        assert columns(write(name, content))["text"] == texts
    assert ("column 'text' seems to have lost Vietnamese letters in" in caplog.text) == lost


@pytest.mark.parametrize(
    ("texts", "old"),
    [
        (["Trôøi möa raát to hoâm nay.", "Ñöôøng phoá ngaäp nöôùc."], True),  # VNI
        (["Trêi m\xada rÊt to.", "Tr\xadêng häc ®ãng cöa n¨m ngµy."], True),  # TCVN3, as of ABC fonts
        (["TrõÌi mýa rất to.", "Hôm nay nãìng."], True),  # Windows-1258 read as 1252
        (["Trời mưa rất to hôm nay.", "Ông ÁI ở Ấp Đông, giá 5½ đồng®."], False),
        (["Où est le goût de l'août ? Naïf, égoïste, jeûne, aéré.", "Größe, Übermut, più, señor, leão."], False),
    ],
)
@pytest.mark.parametrize("read", [columns, lambda path: list(stream_rows(path))])
def test_vietnamese_that_is_not_unicode_is_said(write, caplog, texts, old, read):
    with caplog.at_level(logging.WARNING):
        read(write("rows.csv", "\n".join(["text", *(f'"{text}"' for text in texts)])))
    assert ("column 'text' seems to be Vietnamese in VNI, TCVN3 or Windows-1258" in caplog.text) == old
    assert "lost" not in caplog.text


def test_a_column_is_warned_of_once(write, caplog):
    with caplog.at_level(logging.WARNING):
        columns(write("rows.csv", "text\nTrôøi m?a to."))
    assert len(caplog.records) == 1 and "lost Vietnamese letters" in caplog.text


def test_warnings_of_a_stream_come_once_and_keep_no_error_back(write, caplog):
    path = write("rows.jsonl", '{"text": "Tr?i m?a", "n\\ud83d": "\\ud83d"}\n' * 2500 + "{")
    stream = stream_rows(path)
    assert len([next(stream) for _ in range(2500)]) == 2500
    with pytest.raises(ValueError, match="line 2501: not JSON"):
        next(stream)
    assert caplog.text.count("have lost Vietnamese letters in 1000 of 1000 rows") == 1


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.jsonl", "rows.xlsx"])
def test_names_of_columns_have_composed_letters(write, name):
    typed = normalize("NFD", "văn bản")
    if name.endswith("xlsx"):
        pytest.importorskip("openpyxl", reason='needs pip install "st-vi[excel]"')
        pd.DataFrame({typed: ["Mưa."]}).to_excel(path := write(name, b""), index=False)
    else:
        path = write(name, json.dumps({typed: "Mưa."}) if name.endswith("jsonl") else f"{typed}\nMưa.\n")
    assert columns(path) == {"văn bản": ["Mưa."]}


def test_names_of_columns_that_look_alike_are_one(write):
    with pytest.raises(ValueError, match="line 1: two columns have the name 'nhãn'"):
        read_rows(write("a.csv", f"nhãn,{normalize('NFD', 'nhãn')}\n0,1\n"))
    with pytest.raises(ValueError, match="line 1: the name 'nhãn' is in the object twice"):
        read_rows(write("a.jsonl", json.dumps({"nhãn": 0, normalize("NFD", "nhãn"): 1})))


CONTENT = b"a,b\nx,1\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", gzip.compress(CONTENT), "no text but .gz, by its first bytes: give it the right ending"),
        ("a.jsonl", bz2.compress(b"{}"), "no text but .bz2"),
        ("a.txt", lzma.compress(CONTENT), "no text but .xz"),
        ("a.csv.gz", bz2.compress(CONTENT), "damaged or cut short (Not a gzipped file (b'BZ')); it is .bz2"),
        ("a.csv.gz", gzip.compress(gzip.compress(CONTENT)), "line 1: not UTF-8"),
        ("a.csv", b"PAR1,PAR2\n\xff\n", "no text but .parquet"),
        ("a.xlsx", CONTENT, "damaged, or no Excel file"),
        ("a.xlsx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" * 99, "no Excel file but .xls, or a workbook with a password"),
        (
            "a.csv",
            "a,b\nx,1\n".encode("utf-16-le"),
            "line 1: a NUL character, which no text has; if it is UTF-16, save",
        ),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_a_file_of_another_kind_than_its_name_says(write, name, content, message):
    if name.endswith("xlsx"):
        pytest.importorskip("openpyxl", reason='needs pip install "st-vi[excel]"')
    path = write(name, content)
    with pytest.raises(ValueError, match=re.escape(str(path)) + "[:,] " + re.escape(message)):
        read_rows(path)


def test_first_bytes_of_a_text_may_be_those_of_another_kind(write):
    assert columns(write("a.csv", "PAR1,BZh\nx,1\n")) == {"PAR1": ["x"], "BZh": ["1"]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "a,b\nx,1,\ny,2,\n", "line 2: 3 fields, but the header has 2 (a, b)"),
        ("a.csv", "a,b\nx,1\n\ny,2,3\n", "line 4: 3 fields, but"),
        ("a.csv", "a,b,c\nx,1,2\ny,2\n", "line 3: 2 fields, but the header has 3 (a, b, c)"),
        ("a.tsv", "a\tb\nx\ty\tz\n", "line 2: 3 fields"),
        ("a.tsv", 'a\tb\n"x\ny"\t1\n', "line 2: 1 fields"),
        ("a.csv", 'a,b\n"x\ny",1\nz,2,3\n', "line 4: 3 fields"),
        ("a.csv", 'a,b\n"Nó nói "đi" rồi",1\n', "line 2: quotation marks that do not match"),
        ("a.csv", 'a,b\nx,1\n"y,2\nz,3\n"w,4\n', "line 3: quotation marks that do not match"),
        ("a.csv", 'a,b\nx,1\n"y,2\nz,3\n', "line 3: quotation marks that do not match"),
        ("a.csv", "a,b\nx\ry,1\n", "line 2: a carriage return within a text"),
        ("a.csv", "a,a\nx,1\n", "line 1: two columns have the name 'a'"),
        ("a.csv", b"a,b\nx\0,1\n", "line 2: a NUL character"),
        ("a.csv", "a,b\nx,1\n".encode("utf-16"), "line 1: not UTF-8 but UTF-16; save it as UTF-8"),
        ("a.txt", "a\nà\n".encode("cp1258"), "line 2: not UTF-8"),
        ("a.csv", "a,b\n", ": there are no rows in it, only a header"),
        ("a.csv", "", ": the file is empty"),
        ("a.csv", "\n \n", ": the file is empty"),
        ("a.jsonl", "\n", ": there are no rows in it"),
        ("a.json", "[]", ": there are no rows in it"),
        ("a.txt", "\n", ": there are no rows in it"),
        ("a.json", '[\n{"a": 1},\n{"a": x}\n]', "line 3: not JSON"),
        ("a.json", '[\n{"a": 1}\n{"a": 2}\n]', "line 3: not JSON (expected ',' or ']'"),
        ("a.json", '[\n{"a": 1},\n3\n]', "line 3: expected a JSON object, got int"),
        ("a.json", '[{"a": 1}\n]\n{}', "line 2: not JSON (something follows"),
        ("a.json", '{\n"a": 1\n}', "line 1: not JSON"),
        ("a.csv", "a;b, c\nx;1,5\n", "line 1: the header has ',' and ';', and each may separate the columns"),
        ("a.csv", "a,b\nx,1\na,b\ny,2\n", "line 3: the header once more"),
        ("a.tsv", "\ufeffa\tb\nx\t1\n\ufeffa\tb\n", "line 3: the header once more"),
        ("a.csv", ",a\n0,x\n,a\n", "line 3: the header once more"),
        ("a.jsonl", '{"a": 1}\n{"a": 1, "a": 2}\n', "line 2: the name 'a' is in the object twice"),
        ("a.json", '[{"a": 1},\n{"a": {"b": 1, "b": 2}}]', "line 2: the name 'b' is in the object twice"),
        ("a.txt", "Mưa.\rNắng.\r", "line 1: a carriage return within a text"),
        ("a.csv", "a,b\rx,1\r", "line 1: a carriage return within a text, or at the end of lines as on old Macs"),
        ("a.jsonl", '{"a": 1}\r{"a": 2}\r', "line 1: a carriage return within a text, or at the end of lines"),
        ("a.csv.gz", b"not gzip", ": damaged or cut short"),
        ("a.csv.gz", gzip.compress(b"a,b\n" + b"x,1\n" * 999, mtime=0)[:-9], ": damaged or cut short"),
        ("a.docx", "x", ": cannot read this kind of file"),
        ("a.zip", "x", ": cannot read this kind of file"),
        ("a.parquet.gz", "x", ": cannot read this kind of file"),
        ("rows", "x", ": cannot read this kind of file"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(write, name, content, message):
    path = write(name, content)
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*" + re.escape(message)):
        read_rows(path)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["csv", "CSV", "Tsv", "jsonl", "JSONL", "ndjson", "json", "txt", "TXT"])
@pytest.mark.parametrize("pack", ["", ".gz", ".GZ", ".bz2", ".xz"])
def test_endings_and_compression(write, suffix, pack):
    kind = suffix.lower()
    if kind in ("csv", "tsv", "txt"):
        content = "text\nTrời mưa.\n\nNắng.\n".removeprefix("text\n" if kind == "txt" else "")
    else:
        content = "\n".join(json.dumps({"text": text}) for text in ("Trời mưa.", "Nắng.")) + "\n"
    packer = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[pack.lower()]
    path = write(f"rows.{suffix}{pack}", packer(content.encode()))
    assert columns(path) == columns(str(path)) == {"text": ["Trời mưa.", "Nắng."]}
    assert [row for _, row in stream_rows(path)] == [{"text": "Trời mưa."}, {"text": "Nắng."}]


def test_an_array_of_objects(write):
    content = ' [ {"a": "x]", "b": [1]} ,\n{"a": "y"}\n]\n'
    assert columns(write("rows.json", content)) == {"a": ["x]", "y"], "b": [[1], None]}
    assert [line for line, _ in stream_rows(write("rows.json", content))] == [1, 2]


def test_types_far_apart(write, monkeypatch):
    monkeypatch.setattr(read, "_BATCH", 2)
    rows = [{"a": None}, {"a": None, "s": 1}, {"a": "x", "s": 0.5}, {}, {"b": [1]}, {"b": [0.5]}]
    content = "".join(json.dumps(row) + "\n" for row in rows)
    assert columns(write("rows.jsonl", content)) == {
        "a": [None, None, "x", None, None, None],
        "s": [None, 1.0, 0.5, None, None, None],
        "b": [None] * 4 + [[1.0], [0.5]],
    }
    with pytest.raises(ValueError, match="line 8: column 's' holds 'x' beside float"):
        read_rows(write("rows.jsonl", content + '{"s": 3}\n{"s": "x"}\n'))
    with pytest.raises(ValueError, match="line 7: column 'b' holds list"):
        read_rows(write("rows.jsonl", content + '{"b": ["x"]}\n'))


@pytest.mark.parametrize("batch", [2, 3, 100])
@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([{"a": 1}, {"a": None}, {"a": 2}, {"a": "x"}, {"a": "y"}], 4),
        ([{"a": {"b": "x"}}, {}, {"a": {"b": [1]}}], 3),
        ([[1], [], None, [2, 0.5], ["x"]], 5),
        ([[1], [], None, ["x"]], 4),
        ([[{"a": 1}], [{"a": True}]], 2),
    ],
)
def test_values_inside_of_others_that_change_their_type(write, monkeypatch, batch, values, line):
    monkeypatch.setattr(read, "_BATCH", batch)
    with pytest.raises(ValueError, match=f"line {line}: column 'v' (cannot )?hold"):
        read_rows(write("rows.jsonl", "".join(json.dumps({"v": value}) + "\n" for value in values)))


def test_columns_without_a_name_and_one_column(write):
    assert columns(write("rows.csv", ",a,\n0,x,1\n")) == {"Unnamed: 0": ["0"], "a": ["x"], "Unnamed: 2": ["1"]}
    assert columns(write("rows.csv", 'text\nmưa\n\n""\n  \nnắng\n')) == {"text": ["mưa", "", "nắng"]}


@pytest.mark.parametrize(
    "source",
    [
        "no.csv",
        "no.docx",
        "data/no.jsonl.gz",
        "./no",
        "../a/b",
        "/no",
        "~/no.txt",
        "a/b/c",
        "C:\\a\\b.tsv",
        "hai câu",
        "a.gz",
        "~$rows.xlsx",
        "~nobody/rows.csv",
        "-",
    ],
)
def test_a_path_that_is_not_there_is_not_looked_up(source):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_rows(source)


def test_a_name_in_the_letters_of_another_system(write):
    path = write(normalize("NFD", "số liệu.csv"), "a\nx\n")
    assert columns(path.with_name(normalize("NFC", path.name))) == {"a": ["x"]}
    (folder := path.with_name(normalize("NFD", "thư mục"))).mkdir()
    path.rename(folder / path.name)
    assert columns(folder.with_name("thư mục") / "số liệu.csv") == {"a": ["x"]}


@pytest.mark.parametrize("source", [None, 5, ["a.csv", "b.csv"], {"train": "a.csv"}, Dataset.from_dict({"a": [1]})])
def test_what_is_no_path(source):
    with pytest.raises(ValueError, match=r"expected the path of a file or the id of a Hub dataset, got \w+$"):
        read_rows(source)


def test_a_file_has_no_splits(write):
    with pytest.raises(ValueError, match=r"rows\.csv is a file, which has no split 'test'"):
        read_rows(write("rows.csv", "a\nx\n"), "test")


def test_folders_and_addresses(tmp_path):
    with pytest.raises(ValueError, match="is a folder: give a file in it"):
        read_rows(tmp_path)
    with pytest.raises(ValueError, match="is an address: download it first"):
        read_rows("https://example.org/rows.csv")


@pytest.mark.parametrize("source", ["owner/name", "name", "owner/name-v1.5", "owner/my.data"])
def test_hub_ids(monkeypatch, source):
    monkeypatch.setattr(read, "load_dataset", lambda name, split: (name, split))
    assert read_rows(source, "test") == (source, "test")


def test_parquet(tmp_path):
    rows = {"premise": ["Có, không?", "NA"], "label": [0, 1]}
    Dataset.from_dict(rows).to_parquet(tmp_path / "rows.PARQUET")
    assert columns(tmp_path / "rows.PARQUET") == rows
    for value in ("old", "new"):  # in a file of the same name, size and time
        Dataset.from_dict({"a": [value]}).to_parquet(tmp_path / "same.parquet")
        os.utime(tmp_path / "same.parquet", (1e9, 1e9))
        assert columns(tmp_path / "same.parquet") == {"a": [value]}
    for value in ("1", "[1]"):  # a name is no pattern
        (tmp_path / f"a{value}").mkdir()
        Dataset.from_dict({"a": [value]}).to_parquet(tmp_path / f"a{value}" / f"rows{value}.parquet")
    assert columns(tmp_path / "a[1]" / "rows[1].parquet") == {"a": ["[1]"]}
    views = pa.table({"a": pa.array(["x"], pa.string_view()), "b": pa.array([["y"]], pa.list_(pa.string_view()))})
    pq.write_table(views, tmp_path / "views.parquet")
    assert read_rows(tmp_path / "views.parquet").features == Dataset.from_dict({"a": ["x"], "b": [["y"]]}).features
    for names in (["a", "a"], ["nhãn", normalize("NFD", "nhãn")]):
        pq.write_table(pa.Table.from_arrays([pa.array([1])] * 2, names), tmp_path / "twice.parquet")
        with pytest.raises(ValueError, match=rf"twice\.parquet: two columns have the name '{names[0]}'"):
            read_rows(tmp_path / "twice.parquet")
    for kind, values in ((pa.uuid(), [b"0" * 16]), (pa.map_(pa.string(), pa.int64()), [{"x": 1}])):  # of databases
        pq.write_table(pa.table({"a": ["x"], "b": pa.array(values, kind)}), tmp_path / "kinds.parquet")
        with pytest.raises(ValueError, match=r"kinds\.parquet: column 'b' cannot be read: Arrow type .* leave it out"):
            read_rows(tmp_path / "kinds.parquet")
    Dataset.from_dict({"a": []}).to_parquet(tmp_path / "none.parquet")
    with pytest.raises(ValueError, match=r"none.parquet: there are no rows"):
        read_rows(tmp_path / "none.parquet")


def test_excel(write, caplog):
    openpyxl = pytest.importorskip("openpyxl", reason='needs pip install "st-vi[excel]"')

    book = openpyxl.Workbook()
    rows = [
        [],
        ["id", "premise", "score", None],
        ["007", "Mưa,_x000D_\n gió", 0.9],
        [],
        [8, "NA", 1],
        [None, "TRUE", 2.0],
    ]
    rows.append([" ", None])
    for row in rows:
        book.active.append(row)
    book.create_sheet("hai")
    book.save(path := write("rows.xlsx", ""))
    with caplog.at_level(logging.WARNING):
        read_as = columns(path)
    texts = ["Mưa,\r\n gió", "NA", "TRUE"]  # Excel writes a carriage return as _x000D_
    assert read_as == {"id": ["007", "8", ""], "premise": texts, "score": ["0.9", "1", "2"]}
    assert "of its 2 sheets only 'Sheet' is read" in caplog.text
    with pytest.raises(ValueError, match=r"bad\.xlsx: "):
        read_rows(write("bad.xlsx", "x"))


def test_excel_cells_and_sheets_that_are_no_text(write):
    openpyxl = pytest.importorskip("openpyxl", reason='needs pip install "st-vi[excel]"')

    book = openpyxl.Workbook()
    for row in (["a", None, "b"], ["x", None, 1], ["y", None, "#REF!"]):
        book.active.append(row)
    book.save(path := write("rows.xlsx", ""))
    with pytest.raises(
        ValueError, match=r"rows\.xlsx, line 3: the cell C3 has an error such as #N/A; mend its formula"
    ):
        read_rows(path)
    book.create_chartsheet("hình", 0)  # of no chart, which openpyxl cannot read
    book.save(path)
    with pytest.raises(ValueError, match=r"rows\.xlsx: "):
        read_rows(path)


def test_excel_reads_the_first_sheet_that_is_not_hidden(write):
    openpyxl = pytest.importorskip("openpyxl", reason='needs pip install "st-vi[excel]"')

    book = openpyxl.Workbook()
    book.active.append(["lists of choices"])
    for row in (["text"], ["Trời mưa."]):
        book.create_sheet("dữ liệu").append(row) if len(book.worksheets) == 1 else book["dữ liệu"].append(row)
    book.worksheets[0].sheet_state, book.active = "hidden", 1
    book.save(path := write("rows.xlsx", ""))
    assert columns(path) == {"text": ["Trời mưa."]}


def rewrite(path, old, new):
    """Replace bytes in the parts of a workbook; there are some."""
    with ZipFile(path) as book:
        parts = {name: book.read(name) for name in book.namelist()}
    changed = {name: re.sub(old, new, part) for name, part in parts.items()}
    assert changed != parts
    with ZipFile(path, "w") as book:
        for name, part in changed.items():
            book.writestr(name, part)


def test_excel_formulas_without_values(write, caplog):
    openpyxl = pytest.importorskip("openpyxl", reason='needs pip install "st-vi[excel]"')

    book = openpyxl.Workbook()
    for row in (["text", None, "score"], ["a", None, "=1/2"], [None, "x", None], [None, None, "=1/4"]):
        book.active.append(row)
    book.save(path := write("rows.xlsx", ""))
    rewrite(path, rb'ref="A1:C4"', b'ref="A1"')  # as some programs write it
    with caplog.at_level(logging.WARNING):
        read_rows(path)
    assert "no formula of column C has a value" in caplog.text
    rewrite(path, rb"</f>(<v ?/>|<v></v>)", b"</f><v>0.5</v>")  # as a spreadsheet saves it
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert columns(path)["score"] == ["0.5", "", "0.5"]
    assert not caplog.text


def test_excel_merged_cells(write):
    openpyxl = pytest.importorskip("openpyxl", reason='needs pip install "st-vi[excel]"')

    book = openpyxl.Workbook()
    for row in (["premise", "label", "note"], [], ["a", 1], [None, 2], ["b", 3], [], [None, 4], ["c", 5]):
        book.active.append(row)
    book.active.merge_cells("A1:A2")  # a tall header
    book.active.merge_cells("A3:A4")
    book.active.merge_cells("A5:A7")  # over a blank row
    book.active.merge_cells("B9:B10")  # nothing in it
    book.active.merge_cells("A8:A12")  # beyond the last row
    book.active.merge_cells("C3:F3")  # only for looks
    book.save(path := write("rows.xlsx", ""))
    read_as = columns(path)
    assert (read_as["premise"], read_as["label"]) == (["a", "a", "b", "b", "c"], ["1", "2", "3", "4", "5"])
    book.active.unmerge_cells("A3:A4")
    book.active["A4"] = "Phần 2"
    book.active.merge_cells("A4:B4")
    book.save(path)
    with pytest.raises(ValueError, match=r"rows\.xlsx, line 4: the cells A4:B4 are merged over 2 columns; unmerge"):
        read_rows(path)


def test_excel_is_read_without_warnings_of_what_is_no_cell(write, recwarn):
    openpyxl = pytest.importorskip("openpyxl", reason='needs pip install "st-vi[excel]"')

    book = openpyxl.Workbook()
    for text in ("text", "a"):
        book.active.append([text])
    book.save(path := write("rows.xlsx", ""))
    lists = b'<extLst><ext uri="{CCE6A557-97BC-4b89-ADB6-D9C93CAAB3DF}"/></extLst></worksheet>'  # choices in cells
    rewrite(path, rb"</worksheet>", lists)
    assert columns(path) == {"text": ["a"]}
    assert not [str(warning.message) for warning in recwarn]


def test_excel_without_openpyxl(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(ImportError, match=r"st-vi\[excel\]"):
        read_rows(write("rows.xlsx", "x"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
def test_a_file_is_not_held_as_python_objects(write, monkeypatch, name):
    monkeypatch.setattr(read, "_BATCH", 1000)
    text = "trời mưa " * 20
    line = f"{text},{text}\n" if name == "rows.csv" else json.dumps({"a": text, "b": text}) + "\n"
    path = write(name, ("a,b\n" if name == "rows.csv" else "") + line * 20_000)
    tracemalloc.start()
    try:
        table = read_rows(path).data
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert table.num_rows == 20_000 and peak < 0.5 * path.stat().st_size  # Arrow's own memory is not in it

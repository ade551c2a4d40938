"""A corpus in shards: the same vectors, the same files after a kill, nothing mixed, nothing lost."""

from __future__ import annotations

import gzip
import json
import os
import re
import resource
import shutil
import signal
import time
import unicodedata
from contextlib import nullcontext
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset, IterableDataset
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from sentence_transformers.util import quantize_embeddings
from tokenizers import normalizers

from st_vi import build_vipolyqwen, load
from st_vi.data import read_rows
from st_vi.encoding import corpus, encode_corpus
from st_vi.encoding.shards import save_manifest
from st_vi.identity import model_identity
from tests.conftest import SENTENCES, tiny_tokenizer
from tests.helpers.command_line import st_vi
from tests.helpers.processes import forked
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl

ROWS = [{"text": f"{SENTENCES[i % 8]} {i}", "topic": "mưa" if i % 3 else None, "year": 2000 + i} for i in range(25)]


def write_lines(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def vectors(folder: Path) -> np.ndarray:
    rows = Dataset.from_parquet(str(folder / "*.parquet"), cache_dir=str(folder.parent / "cache"))
    return rows.with_format("numpy")["embedding"][:]


def test_shards_hold_ids_kept_columns_and_vectors(tiny_model, tmp_path):
    result = encode_corpus(tiny_model, ROWS, tmp_path / "out", keep=["topic", "year"], shard_rows=10)
    assert str(result) == "25 rows in 3 shards"
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["manifest.json", *(f"shard-0000{i}.parquet" for i in range(3))]
    tables = [pq.read_table(path) for path in sorted((tmp_path / "out").glob("*.parquet"))]
    assert [table.num_rows for table in tables] == [10, 10, 5]
    assert tables[0].column_names == ["id", "topic", "year", "embedding"]
    assert (
        str(tables[0].schema.field("embedding").type).startswith("fixed_size_list")
        and tables[0].schema.field("embedding").type.list_size == 32
    )
    assert [i for table in tables for i in table["id"].to_pylist()] == list(range(25))
    assert [i for table in tables for i in table["topic"].to_pylist()] == [row["topic"] for row in ROWS]
    expected = np.stack([tiny_model.encode(row["text"]) for row in ROWS])
    assert np.abs(vectors(tmp_path / "out") - expected).max() < 1e-5
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["rows"] == 25 and manifest["complete"]


def test_every_kind_of_source_gives_the_same_files(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    data = Dataset.from_list(ROWS)
    data.to_csv(tmp_path / "rows.csv")
    data.to_parquet(tmp_path / "rows.parquet")
    sources = {
        "list": ROWS,
        "generator": (dict(row) for row in ROWS),
        "dataset": data,
        "stream": IterableDataset.from_generator(lambda: iter(ROWS)),
        "jsonl": write_lines(tmp_path / "rows.jsonl", ROWS),
        "csv": str(tmp_path / "rows.csv"),
        "parquet": tmp_path / "rows.parquet",
    }
    made = {}
    for name, source in sources.items():
        encode_corpus(tiny_model, source, tmp_path / name, shard_rows=10)
        made[name] = files(tmp_path / name)
    assert all(content == made["list"] for content in made.values())


def test_missing_values_of_pandas_are_missing(tiny_model, tmp_path):
    days = pd.Series([pd.Timestamp("2024-05-01"), pd.NaT], dtype="datetime64[ns]")
    frame = pd.DataFrame({"text": ["mưa", "gió"], "day": days, "n": pd.array([None, 7], dtype="Int64")})
    frame["x"] = [float("nan"), 0.5]  # a number
    encode_corpus(tiny_model, frame, tmp_path / "run", keep=["day", "n", "x"])
    table = pq.read_table(tmp_path / "run" / "shard-00000.parquet")
    assert table["n"].to_pylist() == [None, 7] and table["day"].is_null().to_pylist() == [False, True]
    assert np.isnan(table["x"].to_pylist()[0]) and table["x"].null_count == 0
    for kind in ("string", "str", object):  # the second, usual since pandas 3, has NaN where a text is missing
        frame["text"] = pd.array(["mưa", None], dtype=kind)
        with pytest.raises(ValueError, match="column 'text', row 1: nothing to encode in None"):
            encode_corpus(tiny_model, frame, tmp_path / "bad")
        encode_corpus(
            tiny_model,
            frame.rename(columns={"text": "t", "day": "text"}).assign(text="gió"),
            tmp_path / str(kind),
            keep=["t"],
        )
        assert pq.read_table(tmp_path / str(kind) / "shard-00000.parquet")["t"].to_pylist() == ["mưa", None]


def test_lists_in_pandas_count_by_content(tiny_model, tmp_path):
    """Its cells are arrays of objects, which are at other addresses each time."""
    pd.DataFrame({"text": ["mưa"], "tags": [["đường phố", "ngập nước"]]}).to_parquet(tmp_path / "rows.parquet")
    first, again = (pd.read_parquet(tmp_path / "rows.parquet") for _ in range(2))
    encode_corpus(tiny_model, first, tmp_path / "out", keep=["tags"])
    assert encode_corpus(tiny_model, again, tmp_path / "out", keep=["tags"]).reused == 1
    again["tags"] = [np.array(["đường phố", "ngập"], dtype=object)]
    with pytest.raises(ValueError, match="row 0 is not what it was"):
        encode_corpus(tiny_model, again, tmp_path / "out", keep=["tags"])


def encode_slowly(model, source, out):
    """Every batch takes its time, so that a kill comes in the middle."""
    torch.set_num_threads(1)
    model = load(model, device="cpu")
    model.register_forward_pre_hook(lambda *_: time.sleep(0.02))
    encode_corpus(model, source, out, shard_rows=300, max_tokens=1000)


def test_killed_run_goes_on_to_the_same_files(tiny_model, tmp_path):
    tiny_model.save_pretrained(str(tmp_path / "model"))
    source = write_lines(tmp_path / "rows.jsonl", [{"text": f"{SENTENCES[i % 8]} {i}"} for i in range(3000)])
    model, out = load(tmp_path / "model", device="cpu"), tmp_path / "killed"
    process = forked().Process(target=encode_slowly, args=(tmp_path / "model", source, out))
    process.start()
    deadline = time.monotonic() + 120
    while not (out / "shard-00001.parquet").exists() and time.monotonic() < deadline:
        assert process.is_alive()
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert "complete" not in json.loads((out / "manifest.json").read_text())
    there = len(list(out.glob("shard-*.parquet")))
    assert 2 <= there < 10
    (out / ".shard-00009.parquet.part").write_bytes(b"half a shard")

    result = encode_corpus(model, source, out, shard_rows=300, max_tokens=1000)
    assert (result.rows, result.shards, result.reused) == (3000, 10, there)
    encode_corpus(model, source, tmp_path / "whole", shard_rows=300, max_tokens=1000)
    assert files(out) == files(tmp_path / "whole")


def test_going_on_with_anything_else_is_refused(tiny_model, tmp_path):
    out = tmp_path / "out"
    encode_corpus(tiny_model, ROWS, out, shard_rows=10)
    before = files(out)
    for changed, name in (
        ({"shard_rows": 5}, "shard_rows"),
        ({"prompt": "x: "}, "prompt"),
        ({"keep": ["year"]}, "keep"),
    ):
        with pytest.raises(ValueError, match=f"begun with another {name}"):
            encode_corpus(tiny_model, ROWS, out, **{"shard_rows": 10} | changed)
    changed_row = [*ROWS[:17], ROWS[17] | {"text": "khác"}, *ROWS[18:]]
    for rows, problem in (
        (ROWS[:12] + ROWS[13:], "shard-00001.parquet was made of other rows: row 12 is not what it was"),
        (changed_row, "shard-00001.parquet was made of other rows: row 17 is not what it was"),
        (ROWS[:24], "shard-00002.parquet was made of other rows: it has 5, and now there are 4"),
    ):
        with pytest.raises(ValueError, match=problem):
            encode_corpus(tiny_model, rows, out, shard_rows=10)
    with pytest.raises(ValueError, match="more shards than these 20 rows"):
        encode_corpus(tiny_model, ROWS[:20], out, shard_rows=10)
    (out / "shard-00001.parquet").rename(tmp_path / "deleted")  # to be encoded again: there is a gap
    with pytest.raises(ValueError, match="more shards than these 10 rows"):
        encode_corpus(tiny_model, ROWS[:10], out, shard_rows=10)
    (tmp_path / "deleted").rename(out / "shard-00001.parquet")
    with torch.no_grad():
        tiny_model[2].layers[0].bias[0] += 1e-3
    with pytest.raises(ValueError, match="begun with another model"):
        encode_corpus(tiny_model, ROWS, out, shard_rows=10)
    assert files(out) == before
    (out / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"without manifest\.json"):
        encode_corpus(tiny_model, ROWS, out, shard_rows=10)


def encoded_texts(model) -> list[str]:
    """All texts that the model is given from now on."""
    texts: list[str] = []
    encode = model.encode
    model.encode = lambda batch, **kwargs: texts.extend(batch) or encode(batch, **kwargs)
    return texts


@pytest.mark.slow
@pytest.mark.parametrize("before", [3, 10, 14, 20])
def test_more_rows_at_the_end_are_the_only_ones_encoded(tiny_model, tmp_path, before):
    out = tmp_path / "out"
    rows = [dict(row) for row in ROWS]
    rows[2]["text"], rows[21]["text"] = "", None
    settings = {"shard_rows": 10, "keep": ["year"], "bad_row": "skip"}
    encode_corpus(tiny_model, rows[:before], out, **settings)
    old = files(out)
    texts = encoded_texts(tiny_model)
    result = encode_corpus(tiny_model, rows, out, **settings)
    assert sorted(texts) == sorted(row["text"] for row in rows[before:] if row["text"])
    assert (result.rows, result.shards, result.reused) == (23, 3, before // 10)
    assert dict(result.skipped_rows).keys() == {2, 21}
    assert all(files(out)[name] == old[name] for name in list(old)[1 : 1 + before // 10])
    encode_corpus(tiny_model, rows, tmp_path / "fresh", **settings)
    for number in range(3):
        grown, fresh = (pq.read_table(tmp_path / name / f"shard-0000{number}.parquet") for name in ("out", "fresh"))
        assert grown.drop(["embedding"]).equals(fresh.drop(["embedding"]))
        assert grown.schema.equals(fresh.schema, check_metadata=True)
    assert np.abs(vectors(out) - vectors(tmp_path / "fresh")).max() < 1e-6
    assert files(out)["manifest.json"] == files(tmp_path / "fresh")["manifest.json"]
    texts.clear()
    assert encode_corpus(tiny_model, rows, out, **settings).reused == 3 and not texts


def test_a_deleted_shard_alone_is_made_again(tiny_model, tmp_path):
    out = tmp_path / "out"
    encode_corpus(tiny_model, ROWS, out, shard_rows=10)
    before = files(out)
    (out / "shard-00001.parquet").unlink()
    texts = encoded_texts(tiny_model)
    assert encode_corpus(tiny_model, ROWS, out, shard_rows=10).reused == 2
    assert sorted(texts) == sorted(row["text"] for row in ROWS[10:20]) and files(out) == before
    whole = before["shard-00001.parquet"]
    for damaged in (b"no Parquet", whole[:-100], whole[:-1000] + bytes(992) + whole[-8:], b""):
        (out / "shard-00001.parquet").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"shard-00001\.parquet is no shard that encode_corpus wrote: delete it"):
            encode_corpus(tiny_model, ROWS, out, shard_rows=10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "prompt", "problem"),
    [
        (ROWS, None, None),
        (ROWS[:10], None, None),
        (ROWS, "x: ", "begun with another prompt 'x: ', now None"),
        (ROWS[::-1], None, "was made of other rows|written by another run at the same time, of other rows"),
    ],
    ids=["same", "fewer rows", "other settings", "other rows"],
)
def test_two_runs_at_once_are_never_mixed(tiny_model, tmp_path, rows, prompt, problem):
    """The other comes and goes while this one reads its second shard, and has not written its first."""
    out = tmp_path / "out"

    def meanwhile():
        yield from ROWS[:10]
        encode_corpus(tiny_model, rows, out, shard_rows=10, prompt=prompt)
        yield from ROWS[10:]

    with pytest.raises(ValueError, match=problem) if problem else nullcontext():
        encode_corpus(tiny_model, meanwhile(), out, shard_rows=10)
    written = [row["text"] for row in (rows if problem else ROWS)]
    assert np.abs(vectors(out) - tiny_model.encode(written, prompt=prompt)).max() < 1e-5
    assert not list(out.glob(".*"))


def test_a_folder_of_an_earlier_version_is_refused(tiny_model, tmp_path):
    (tmp_path / "manifest.json").write_text('{"column": "text"}')
    with pytest.raises(ValueError, match="begun by another version of st_vi"):
        encode_corpus(tiny_model, ROWS, tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest\.json cannot be read"):
        encode_corpus(tiny_model, ROWS, tmp_path)


class LikePolars(list):
    """As much of polars' data frames as is used; polars need not be installed."""

    def to_arrow(self):
        return pa.Table.from_pylist(self)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["jsonl.gz", "JSONL", "DataFrame", "polars", "Arrow", "record batch"])
def test_other_sources_give_the_same_files(tiny_model, tmp_path, kind):
    if kind in (frames := {"DataFrame": pd.DataFrame, "polars": LikePolars, "Arrow": pa.Table.from_pylist}):
        source = frames[kind](ROWS)
    elif kind == "record batch":
        source = pa.RecordBatch.from_pylist(ROWS)
    else:
        source = tmp_path / f"rows.{kind}"
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
        source.write_bytes(gzip.compress(lines) if kind.endswith("gz") else lines)
    encode_corpus(tiny_model, source, tmp_path / "out", keep=["year"], shard_rows=10)
    encode_corpus(tiny_model, ROWS, tmp_path / "list", keep=["year"], shard_rows=10)
    assert files(tmp_path / "out") == files(tmp_path / "list")


def test_texts_that_the_model_cuts_are_counted(tiny_model, tmp_path):
    short, long = [row["text"] for row in ROWS], [" ".join(SENTENCES * 3), " ".join(SENTENCES)]
    tokenizer = tiny_model.tokenizer
    whole = [len(tokenizer(text)["input_ids"]) for text in long]
    assert min(whole) > tiny_model.max_seq_length == 64
    edge = " ".join(["mưa"] * 200)
    while len(tokenizer(edge)["input_ids"]) > 64:
        edge = edge[:-1]
    assert len(tokenizer(edge)["input_ids"]) == 64  # fits to the last token
    rows = [{"text": text} for text in [*short, *long, edge]]
    result = encode_corpus(tiny_model, rows, tmp_path / "out", shard_rows=10)
    assert (result.cut.texts, result.cut.read, result.cut.tokens) == (2, 128, sum(whole))
    share = f"{100 * 128 / sum(whole):.0f} % of their tokens were used"
    assert f"2 texts are longer than the 64 tokens that the model reads: {share}" in str(result)
    again = encode_corpus(tiny_model, rows, tmp_path / "out", shard_rows=10)
    assert again.cut == result.cut and again.reused == 3
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["cut"] == {"texts": 2, "tokens_read": 128, "tokens": sum(whole)}


@pytest.mark.parametrize("chunk", [True, 30])
def test_long_texts_in_chunks(tiny_model, tmp_path, chunk):
    texts = [SENTENCES[0], " ".join(SENTENCES * 3), "", SENTENCES[1] + "\n\n" + " ".join(SENTENCES), SENTENCES[2]]
    rows = [{"id": f"luật {i}", "text": text} for i, text in enumerate(texts)]
    settings = {"keep": ["id"], "chunk": chunk, "bad_row": "skip", "shard_rows": 4, "prompt": "xin: "}
    result = encode_corpus(tiny_model, rows, tmp_path / "out", **settings)
    table = pa.concat_tables([pq.read_table(path) for path in sorted((tmp_path / "out").glob("*.parquet"))])
    assert table.column_names == ["id", "start", "end", "embedding"]
    assert (result.rows, result.skipped, result.vectors) == (4, 1, table.num_rows) and table.num_rows > 8
    assert f"4 rows ({table.num_rows} vectors) in 2 shards" in str(result) and not result.cut.texts
    limit, pieces = 64 if chunk is True else chunk, []
    for line in table.to_pylist():
        text = texts[int(line["id"].split()[1])]
        pieces.append(text[line["start"] : line["end"]])
        assert len(tiny_model.tokenizer("xin: " + pieces[-1])["input_ids"]) <= limit
        assert pieces[-1][-1] == "." or chunk == 30  # ends with a sentence
    found = np.array(table["embedding"].to_pylist())
    assert np.abs(found - tiny_model.encode(pieces, prompt="xin: ")).max() < 1e-5
    ids = table["id"].to_pylist()
    assert ids == sorted(ids)
    for number, text in enumerate(texts):
        read = [piece for piece, name in zip(pieces, ids, strict=True) if name == f"luật {number}"]
        assert " ".join(read).split() == text.split()

    with pytest.raises(ValueError, match="begun with another chunk"):
        encode_corpus(tiny_model, rows, tmp_path / "out", **settings | {"chunk": False})
    with pytest.raises(ValueError, match="chunks of 65 tokens are more than the 64"):
        encode_corpus(tiny_model, rows, tmp_path / "more", **settings | {"chunk": 65})
    with pytest.raises(ValueError, match="no room beside prompt and special tokens"):
        encode_corpus(tiny_model, rows, tmp_path / "less", **settings | {"chunk": 3})
    with pytest.raises(ValueError, match=r"keep must be a list of columns, .*'start'"):
        encode_corpus(tiny_model, rows, tmp_path / "kept", chunk=True, keep=["start"])
    assert not any((tmp_path / name).exists() for name in ("more", "less", "kept"))


@pytest.mark.parametrize("precision", ["float32", "float16", "binary"])
def test_unit_length(tiny_model, tmp_path, precision):
    del tiny_model[3]
    encode_corpus(tiny_model, ROWS, tmp_path / "out", normalize=True, precision=precision)
    expected = tiny_model.encode([row["text"] for row in ROWS], normalize_embeddings=True)
    if precision == "binary":
        assert np.array_equal(vectors(tmp_path / "out"), quantize_embeddings(expected, "binary"))
    else:
        assert np.abs(vectors(tmp_path / "out").astype(np.float32) - expected).max() < 1e-3
    with pytest.raises(ValueError, match="begun with another normalize True, now False"):
        encode_corpus(tiny_model, ROWS, tmp_path / "out", precision=precision)


@pytest.mark.parametrize("side", ["left", "right"])  # padded on the left, stock encodes
def test_unit_length_in_half_precision(tiny_model, tmp_path, side):
    """In bfloat16, lengths would be 0.997 to 1.003, and inner products no cosines."""
    del tiny_model[3]
    tiny_model.tokenizer.padding_side = side
    encode_corpus(tiny_model.bfloat16(), ROWS, tmp_path / "out", normalize=True)
    assert np.abs(np.linalg.norm(vectors(tmp_path / "out"), axis=1) - 1).max() < 1e-6


def test_numbers_that_float16_does_not_have_are_an_error():
    with pytest.raises(ValueError, match="float16 cannot hold 7e\\+04"):
        corpus.embedding_array(np.array([[1.0, -70_000.0]]), "float16")


def test_the_bar_moves_with_the_rows(tiny_model, tmp_path, monkeypatch):
    updates: list[int] = []

    class Bar(corpus.tqdm):
        def update(self, n=1):
            updates.append(n)
            return super().update(n)

    monkeypatch.setattr(corpus, "tqdm", Bar)
    source = write_lines(tmp_path / "rows.jsonl", [*ROWS, {"text": " ".join(SENTENCES * 2)}, {"text": None}])
    settings = {"show_progress_bar": True, "max_tokens": 100, "bad_row": "skip", "chunk": True}
    encode_corpus(tiny_model, source, tmp_path / "out", **settings)
    assert sum(updates) == 27 and sum(map(bool, updates)) > 5
    assert corpus.row_count(iter([]), source) == 27


def test_a_copy_of_the_model_is_the_same_model(tiny_model, tmp_path):
    identity = model_identity(tiny_model)
    tiny_model.encode(SENTENCES)  # leaves its padding in the tokenizer
    assert model_identity(tiny_model) == identity
    tiny_model.save_pretrained(str(tmp_path))
    assert model_identity(load(tmp_path)) == identity
    again = load(tmp_path)
    again[0].model.pooler.dense.weight.data.zero_()  # nothing reads it
    assert model_identity(again) == identity
    tiny_model.max_seq_length = 8
    assert model_identity(tiny_model) != identity


def test_a_model_that_was_changed_in_place_is_another(tiny_model):
    seen = {model_identity(tiny_model)}

    def changed(name, change):
        change()
        seen.add(identity := model_identity(tiny_model))
        assert identity == model_identity(tiny_model), name
        return len(seen)

    peft = pytest.importorskip("peft")
    adapter = peft.LoraConfig(r=2, target_modules=["query"], init_lora_weights=False)
    peft_layer = peft.tuners.lora.LoraLayer
    changes = {
        "length": lambda: setattr(tiny_model, "max_seq_length", 16),
        "dimension": lambda: setattr(tiny_model, "truncate_dim", 8),
        "end of long texts": lambda: setattr(tiny_model.tokenizer, "truncation_side", "left"),
        "weights": lambda: tiny_model[2].layers[0].bias.data.add_(1e-3),
        "dtype": lambda: tiny_model.bfloat16(),
        "tokens": lambda: tiny_model.tokenizer.add_tokens(["mưa to"]),
        "adapter": lambda: tiny_model.add_adapter(adapter),
        "alpha": lambda: [
            module.set_scale("default", 4) for module in tiny_model.modules() if isinstance(module, peft_layer)
        ],
        "adapter off": lambda: tiny_model[0].model.disable_adapters(),
        "module": lambda: tiny_model.append(torch.nn.Identity()),
        "another": lambda: tiny_model.__setitem__(4, torch.nn.Tanh()),
    }
    for number, (name, change) in enumerate(changes.items(), 2):
        assert changed(name, change) == number, name


def test_a_static_model_is_another_with_another_tokenizer():
    tokenizer = tiny_tokenizer().backend_tokenizer
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=8)], device="cpu")
    identity = model_identity(model)
    model.encode(SENTENCES)
    assert model_identity(model) == identity
    tokenizer.normalizer = normalizers.Lowercase()  # has the same vocabulary
    assert model_identity(model) != identity


def test_a_copy_of_a_model_for_pictures_is_the_same_model(tmp_path):
    base = save_tiny_qwen2_vl(tmp_path / "base")
    model = build_vipolyqwen(str(base), embedding_dimension=16, max_pixels=112 * 112)
    identity = model_identity(model)
    model.encode(["Chào.", Image.new("RGB", (60, 60))])
    assert model_identity(model) == identity
    model.save_pretrained(str(tmp_path / "model"))
    assert model_identity(load(tmp_path / "model")) == identity
    model[0].processor.image_processor.size = {"shortest_edge": 56 * 56, "longest_edge": 56 * 56}
    assert model_identity(model) != identity


def test_bad_input_is_named(tiny_model, tmp_path):
    out = tmp_path / "out"
    for value in (None, "  ", 3, "\u200b\u00ad", float("nan"), [], {}):
        rows = [*ROWS[:13], {"text": value}, *ROWS[:2]]
        with pytest.raises(ValueError, match=f"column 'text', row 13: nothing to encode in {re.escape(repr(value))}"):
            encode_corpus(tiny_model, rows, tmp_path / "bad", shard_rows=10)
        assert not list((tmp_path / "bad").glob("shard-00001*"))
        shutil.rmtree(tmp_path / "bad")
    with pytest.raises(ValueError, match=r"missing column 'body'; the columns are \['text', 'topic', 'year'\]"):
        encode_corpus(tiny_model, ROWS, out, "body")
    with pytest.raises(ValueError, match="missing column 'body'"):
        encode_corpus(tiny_model, Dataset.from_list(ROWS), out, keep=["body"])
    with pytest.raises(ValueError, match="two columns have the name 'text'"):
        encode_corpus(tiny_model, pd.DataFrame([["mưa", "gió"]], columns=["text", "text"]), out)
    with pytest.raises(ValueError, match=r"got a dict with the keys \['train'\]: pass one of its datasets"):
        encode_corpus(tiny_model, {"train": ROWS}, out)
    with pytest.raises(ValueError, match=r"keys \['text'\]: .* or the Dataset.from_dict of its columns"):
        encode_corpus(tiny_model, {"text": ["mưa", "gió"]}, out)
    with pytest.raises(ValueError, match="expected a dataset, a data frame or dicts, got a NoneType"):
        encode_corpus(tiny_model, None, out)
    with pytest.raises(ValueError, match="the corpus is empty"):
        encode_corpus(tiny_model, [], out)
    with pytest.raises(ValueError, match="no usable row among 2"):
        encode_corpus(tiny_model, [{"text": None}, {"text": ""}], tmp_path / "none", bad_row="skip", shard_rows=1)
    assert not (tmp_path / "none").exists()
    with pytest.raises(ValueError, match=r"row 0: expected a text, got several: \['mưa', 'gió'\]"):
        encode_corpus(tiny_model, [{"text": ["mưa", "gió"]}], out)
    with pytest.raises(ValueError, match="int8 needs ranges"):
        encode_corpus(tiny_model, ROWS, out, precision="int8")
    with pytest.raises(ValueError, match="column 'year', row 10: this does not fit into shard-00001"):
        encode_corpus(
            tiny_model, [*ROWS[:10], {"text": "a", "year": "nay"}], tmp_path / "y", keep=["year"], shard_rows=10
        )
    with pytest.raises(FileNotFoundError):
        encode_corpus(tiny_model, tmp_path / "no.jsonl", out)
    assert not out.exists()


def test_a_folder_that_cannot_be_written_is_refused_before_the_model_works(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    monkeypatch.setattr(tiny_model, "forward", lambda *args, **kwargs: pytest.fail("the model works"))
    with pytest.raises(PermissionError, match=f"run cannot be written: no permission in {tmp_path}$"):
        encode_corpus(tiny_model, ROWS, tmp_path / "a" / "run")


def test_a_text_without_room_in_a_chunk_is_a_bad_row(tiny_model, tmp_path):
    rows = [{"text": "mưa"}, {"text": "mưa 𝌆"}]
    with pytest.raises(ValueError, match="column 'text', row 1: pieces of 3 have no room for the character '𝌆'"):
        encode_corpus(tiny_model, rows, tmp_path / "bad", chunk=3)
    result = encode_corpus(tiny_model, rows, tmp_path / "run", chunk=3, bad_row="skip")
    assert (result.rows, list(result.skipped_rows)) == (1, [1])


def test_skipped_rows_are_counted_and_leave_their_numbers_free(tiny_model, tmp_path):
    rows = [dict(row) for row in ROWS]
    for number in (0, 12, 13):
        rows[number]["text"] = ""
    result = encode_corpus(tiny_model, rows, tmp_path / "out", shard_rows=10, bad_row="skip")
    assert (result.rows, result.skipped) == (22, 3) and "3 bad rows skipped" in str(result)
    assert list(result.skipped_rows) == [0, 12, 13]
    assert "skipped row 12: column 'text': nothing to encode in ''" in str(result)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert list(manifest["skipped_rows"]) == ["0", "12", "13"]
    assert encode_corpus(tiny_model, rows, tmp_path / "out", shard_rows=10, bad_row="skip").skipped_rows.keys() == {
        0,
        12,
        13,
    }
    ids = [i for path in sorted((tmp_path / "out").glob("*.parquet")) for i in pq.read_table(path)["id"].to_pylist()]
    assert ids == [i for i in range(25) if i not in (0, 12, 13)]


def test_many_skipped_rows_are_not_all_shown(tiny_model, tmp_path):
    result = encode_corpus(tiny_model, [{"text": ""}] * 30 + ROWS, tmp_path / "out", bad_row="skip", shard_rows=7)
    assert len(vectors(tmp_path / "out")) == 25  # shards without a row can be read
    lines = str(result).splitlines()
    assert len(lines) == 12 and lines[10].startswith("skipped row 9:")
    assert lines[11] == "and 20 more: all are in manifest.json"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (1, 5.5),
        ({"a": 1}, {"b": 2}),
        ([{"a": 1}], [{"b": 2}]),
        (date(2020, 1, 2), datetime(2020, 1, 2, 3)),
        (datetime(2020, 1, 2), pd.Timestamp(2020, 1, 2, nanosecond=1)),
        (timedelta(1), pd.Timedelta(1, "ns")),
    ],
)
def test_no_part_of_a_kept_value_is_lost(tiny_model, tmp_path, first, second):
    """Arrow would store 5 of 5.5 where the type is that of an earlier shard."""
    rows = [{"text": "mưa", "kept": value} for value in (first, None, first, second)]
    with pytest.raises(ValueError, match=r"column 'kept', row 3: this does not fit into .* would be left"):
        encode_corpus(tiny_model, rows, tmp_path / "out", keep=["kept"], shard_rows=2)
    rows[3]["kept"] = first
    encode_corpus(tiny_model, rows, tmp_path / "out", keep=["kept"], shard_rows=2)
    kept = [
        row for path in sorted((tmp_path / "out").glob("*.parquet")) for row in pq.read_table(path)["kept"].to_pylist()
    ]
    assert kept == [first, None, first, first]


@pytest.mark.parametrize("value", [2020, 0.5, [1], {"a": 1}, date(2020, 1, 2)], ids=str)
@pytest.mark.parametrize("part", [None, (2, 2)])
def test_kept_values_that_begin_late_have_their_type(tiny_model, tmp_path, value, part):
    """Their column would be one of texts, which the value does not fit into."""
    rows = [{"text": "mưa", "kept": kept, "never": None} for kept in (None, None, value, pd.NA, None, value)]
    encode_corpus(tiny_model, rows, tmp_path / "out", keep=["kept", "never"], shard_rows=2, part=part)
    encode_corpus(tiny_model, rows, tmp_path / "out", keep=["kept", "never"], shard_rows=2)
    table = pa.concat_tables([pq.read_table(path) for path in sorted((tmp_path / "out").glob("*.parquet"))])
    assert table["kept"].to_pylist() == [None, None, value, None, None, value]


@pytest.mark.parametrize("kept", [[2020, None, 2021], [None, 2020, None]], ids=str)
@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1)], ids=str)
def test_a_kept_column_has_one_type_in_all_parts(tiny_model, tmp_path, kept, order):
    """The part without a value made it one of texts, and all parts were for nothing."""
    rows = [{"text": "mưa", "kept": value} for value in kept]
    for k in order:
        encode_corpus(tiny_model, rows, tmp_path / "out", keep=["kept"], shard_rows=1, part=(k, 3))
    assert encode_corpus(tiny_model, rows, tmp_path / "out", keep=["kept"], shard_rows=1).reused == 3
    table = pa.concat_tables([pq.read_table(path) for path in sorted((tmp_path / "out").glob("*.parquet"))])
    assert table["kept"].to_pylist() == kept


def test_kept_values_of_which_arrow_makes_nothing_are_bad_rows(tiny_model, tmp_path):
    rows = [{"text": "mưa", "kept": np.datetime64("2020-01-02")}, {"text": "nắng", "kept": 1}]
    with pytest.raises(ValueError, match="column 'kept', row 0: this does not fit into shard-00000"):
        encode_corpus(tiny_model, rows, tmp_path / "out", keep=["kept"])
    assert list(encode_corpus(tiny_model, rows, tmp_path / "out", keep=["kept"], bad_row="skip").skipped_rows) == [0]


def test_rows_whose_kept_values_do_not_fit_are_bad_rows(tiny_model, tmp_path):
    rows = [dict(row) for row in ROWS]
    rows[3]["year"], rows[12]["year"], rows[13]["topic"] = "nay", 10**30, "\ud83d"
    settings = {"keep": ["year", "topic"], "shard_rows": 10}
    with pytest.raises(ValueError, match="column 'year', row 3: this does not fit into shard-00000"):
        encode_corpus(tiny_model, rows, tmp_path / "out", **settings)
    result = encode_corpus(tiny_model, rows, tmp_path / "out", bad_row="skip", **settings)
    assert list(result.skipped_rows) == [3, 12, 13]
    table = pa.concat_tables([pq.read_table(path) for path in sorted((tmp_path / "out").glob("*.parquet"))])
    assert table["year"].to_pylist() == [row["year"] for i, row in enumerate(ROWS) if i not in (3, 12, 13)]
    before = files(tmp_path / "out")
    with pytest.raises(ValueError, match="made without row 3, column 'year': this does not fit"):
        encode_corpus(tiny_model, rows, tmp_path / "out", **settings)
    assert files(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("precision", "kind", "width"), [("float16", "f2", 32), ("binary", "i1", 4), ("ubinary", "u1", 4)]
)
def test_precisions(tiny_model, tmp_path, precision, kind, width):
    encode_corpus(tiny_model, ROWS, tmp_path / "out", shard_rows=10, precision=precision)
    values = pq.read_table(tmp_path / "out" / "shard-00000.parquet")["embedding"].combine_chunks()
    found = values.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    expected = tiny_model.encode([row["text"] for row in ROWS[:10]], precision="float32" if kind == "f2" else precision)
    assert found.dtype == kind and np.abs(found.astype(float) - expected.astype(float)).max() < 1e-3


def test_pictures_and_texts(tmp_path):
    base = save_tiny_qwen2_vl(tmp_path / "base")
    model = build_vipolyqwen(str(base), embedding_dimension=16, max_pixels=112 * 112)
    Image.effect_noise((60, 90), 50).convert("RGB").save(tmp_path / "a.png")
    inputs = ["Chào.", str(tmp_path / "a.png"), {"text": "Gì?", "image": str(tmp_path / "a.png")}, "Trời mưa."]
    source = write_lines(tmp_path / "rows.jsonl", [{"input": item} for item in inputs if isinstance(item, dict)])
    encode_corpus(
        model, ({"input": item} for item in inputs), tmp_path / "out", "input", prompt_name="ocr", shard_rows=3
    )
    expected = np.stack([model.encode(item, prompt_name="ocr") for item in inputs])
    assert np.abs(vectors(tmp_path / "out") - expected).max() < 1e-5
    encode_corpus(model, source, tmp_path / "lines", "input", prompt_name="ocr")
    (tmp_path / "b.png").write_bytes(b"no image")
    broken = [{"input": "Chào."}, {"input": str(tmp_path / "b.png")}]
    with pytest.raises(ValueError, match=r"column 'input', row 1: .*b\.png"):
        encode_corpus(model, broken, tmp_path / "broken", "input")
    assert np.abs(vectors(tmp_path / "lines") - expected[2:3]).max() < 1e-5


def encode_many(model, out, count, peak):
    """Put the peak memory of this process, in MiB, in `peak`."""
    torch.set_num_threads(1)
    rows = ({"text": f"Trời mưa to {i}", "note": "x" * 16_000} for i in range(count))
    encode_corpus(load(model, device="cpu"), rows, out, keep=["note"], shard_rows=250)
    peak.value = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_memory_does_not_grow_with_the_corpus(tiny_model, tmp_path):
    """Peak memory of a process that encodes 1,500 rows, and of one that encodes 3 times as many."""
    tiny_model.save_pretrained(str(tmp_path / "model"))
    peaks = []
    for count in (1500, 4500):  # 24 and 72 MB of text
        peak = forked().Value("d")
        process = forked().Process(target=encode_many, args=(tmp_path / "model", tmp_path / f"out{count}", count, peak))
        process.start()
        process.join()
        assert process.exitcode == 0
        peaks.append(peak.value)
    assert peaks[1] - peaks[0] < 24, peaks


def test_the_command(tiny_model, tmp_path):
    tiny_model.save_pretrained(str(tmp_path / "model"))
    source = write_lines(tmp_path / "rows.jsonl", ROWS)
    command = ("encode", tmp_path / "model", source, tmp_path / "out", "--shard-rows", 10, "--keep", "year")
    result = st_vi(*command)
    assert result.exit_code == 0, result.output
    assert "25 rows in 3 shards in" in result.output
    encode_corpus(tiny_model, read_rows(source), tmp_path / "again", shard_rows=10, keep=["year"])
    assert files(tmp_path / "out") == files(tmp_path / "again")
    assert "3 of them from an earlier run" in st_vi(*command).output


@pytest.mark.slow
def test_the_command_says_what_was_left_out(tiny_model, tmp_path):
    tiny_model.save_pretrained(str(tmp_path / "model"))
    rows = [*ROWS, {"text": None}, {"text": " ".join(SENTENCES * 3)}]
    source = write_lines(tmp_path / "rows.jsonl", rows)
    command = ("encode", tmp_path / "model", source, tmp_path / "out")
    result = st_vi(*command)
    assert isinstance(result.exception, ValueError) and not (tmp_path / "out").exists()
    assert f"{source}: column 'text', row 25: nothing to encode in None" in str(result.exception)
    result = st_vi(*command, "--skip-bad-rows", "--normalize")
    assert result.exit_code == 0, result.output
    assert "26 rows in 1 shards, 1 bad rows skipped in " in result.stdout
    assert "skipped row 25: column 'text': nothing to encode in None" in result.stdout
    assert "1 texts are longer than the 64 tokens that the model reads" in result.stdout
    result = st_vi(*command[:3], tmp_path / "chunks", "--skip-bad-rows", "--chunk", "--chunk-tokens", 40)
    assert result.exit_code == 0, result.output
    assert "longer than" not in result.stdout and "vectors) in 1 shards" in result.stdout
    assert pq.read_schema(tmp_path / "chunks" / "shard-00000.parquet").names == ["id", "start", "end", "embedding"]
    assert "--chunk-tokens does nothing without --chunk" in str(st_vi(*command, "--chunk-tokens", 40).exception)


def test_a_manifest_that_an_equal_run_has_finished_stands(tmp_path, monkeypatch):
    save_manifest(tmp_path, {"rows": 2})

    def removed(old, new):  # by `remove_unfinished` of the other run
        raise FileNotFoundError(2, "No such file or directory", str(old))

    monkeypatch.setattr("os.replace", removed)
    save_manifest(tmp_path, {"settings": "the same"})
    assert json.loads((tmp_path / "manifest.json").read_text()) == {"rows": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["frame", "table", "dataset", "dicts", "parquet", "jsonl"])
@pytest.mark.parametrize(("written", "asked"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_names_of_columns_in_other_letters_of_unicode(tiny_model, tmp_path, form, written, asked):
    name, wanted, kept = (
        unicodedata.normalize(*pair) for pair in ((written, "văn bản"), (asked, "văn bản"), (asked, "số"))
    )
    columns = {name: ["Trời mưa.", "Mèo ngủ."], unicodedata.normalize(written, "số"): [1, 2]}
    table = pa.table(columns)
    table.to_pandas().to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    pq.write_table(table, tmp_path / "a.parquet")
    rows = {
        "frame": table.to_pandas,
        "table": lambda: table,
        "dataset": lambda: Dataset(table),
        "dicts": table.to_pylist,
        "parquet": lambda: tmp_path / "a.parquet",
        "jsonl": lambda: tmp_path / "a.jsonl",
    }[form]()
    encode_corpus(tiny_model, rows, tmp_path / "out", wanted, keep=[kept])
    made = pq.read_table(tmp_path / "out" / "shard-00000.parquet")
    assert made[kept].to_pylist() == [1, 2]
    np.testing.assert_allclose(made["embedding"].to_pylist(), tiny_model.encode(columns[name]), atol=1e-5)


def test_a_folder_in_the_home_and_numbers_of_numpy(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    numbers = {"shard_rows": np.int64(1), "max_tokens": np.int64(100)}
    encode_corpus(tiny_model, [{"text": "a"}, {"text": "b"}], "~/out", **numbers)
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    again = encode_corpus(tiny_model, [{"text": "a"}, {"text": "b"}], tmp_path / "home" / "out", **numbers)
    assert again.reused == 2


@pytest.mark.parametrize("argument", ["column", "image_column"])
@pytest.mark.parametrize("value", [0, "", ["text"]])
def test_a_column_is_a_name(tiny_model, tmp_path, argument, value):
    with pytest.raises(ValueError, match=f"{argument} must be the name of a column"):
        encode_corpus(tiny_model, [{"text": "a"}], tmp_path / "out", **{argument: value})
    assert not (tmp_path / "out").exists()

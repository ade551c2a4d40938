"""A corpus in shards: the same vectors, the same files after a kill, nothing mixed, nothing lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset, IterableDataset
from PIL import Image

from st_vi import build_vipolyqwen, load
from st_vi.data import read_rows
from st_vi.encoding import encode_corpus
from st_vi.encoding.identity import model_identity
from tests.conftest import SENTENCES
from tests.test_command_line import st_vi
from tests.tiny_qwen2_vl import save_tiny_qwen2_vl

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


def test_killed_run_goes_on_to_the_same_files(tiny_model, tmp_path):
    tiny_model.save_pretrained(str(tmp_path / "model"))
    source = write_lines(tmp_path / "rows.jsonl", [{"text": f"{SENTENCES[i % 8]} {i}"} for i in range(3000)])
    model, out = load(tmp_path / "model", device="cpu"), tmp_path / "killed"
    # Every batch takes its time, so that the kill comes in the middle.
    code = f"""
import time, torch
torch.set_num_threads(1)
from st_vi import load
from st_vi.encoding import encode_corpus
model = load({str(tmp_path / "model")!r}, device="cpu")
model.register_forward_pre_hook(lambda *_: time.sleep(0.02))
encode_corpus(model, {str(source)!r}, {str(out)!r}, shard_rows=300, max_tokens=1000)
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 120
    while not (out / "shard-00001.parquet").exists() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
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
    for rows in (ROWS[:12] + ROWS[13:], ROWS[:24], [*ROWS, ROWS[0]]):
        with pytest.raises(ValueError, match="made of other rows"):
            encode_corpus(tiny_model, rows, out, shard_rows=10)
    with pytest.raises(ValueError, match="more shards than these 20 rows"):
        encode_corpus(tiny_model, ROWS[:20], out, shard_rows=10)
    with torch.no_grad():
        tiny_model[2].layers[0].bias[0] += 1e-3
    with pytest.raises(ValueError, match="begun with another model"):
        encode_corpus(tiny_model, ROWS, out, shard_rows=10)
    assert files(out) == before
    (out / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"without manifest\.json"):
        encode_corpus(tiny_model, ROWS, out, shard_rows=10)


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


def test_bad_input_is_named(tiny_model, tmp_path):
    out = tmp_path / "out"
    for value in (None, "  ", 3):
        rows = [*ROWS[:13], {"text": value}, *ROWS[:2]]
        with pytest.raises(ValueError, match=f"column 'text', row 13: nothing to encode in {value!r}"):
            encode_corpus(tiny_model, rows, tmp_path / f"out{value}", shard_rows=10)
    with pytest.raises(ValueError, match=r"missing column 'body'; the columns are \['text', 'topic', 'year'\]"):
        encode_corpus(tiny_model, ROWS, out, "body")
    with pytest.raises(ValueError, match="missing column 'body'"):
        encode_corpus(tiny_model, Dataset.from_list(ROWS), out, keep=["body"])
    with pytest.raises(ValueError, match="the corpus is empty"):
        encode_corpus(tiny_model, [], out)
    with pytest.raises(ValueError, match="no usable row among 2"):
        encode_corpus(tiny_model, [{"text": None}, {"text": ""}], tmp_path / "none", bad_row="skip")
    with pytest.raises(ValueError, match="int8 needs ranges"):
        encode_corpus(tiny_model, ROWS, out, precision="int8")
    with pytest.raises(ValueError, match="column 'year' does not fit into shard-00001"):
        encode_corpus(
            tiny_model, [*ROWS[:10], {"text": "a", "year": "nay"}], tmp_path / "y", keep=["year"], shard_rows=10
        )
    with pytest.raises(FileNotFoundError):
        encode_corpus(tiny_model, tmp_path / "no.jsonl", out)
    assert not out.exists()


def test_skipped_rows_are_counted_and_leave_their_numbers_free(tiny_model, tmp_path):
    rows = [dict(row) for row in ROWS]
    for number in (0, 12, 13):
        rows[number]["text"] = ""
    result = encode_corpus(tiny_model, rows, tmp_path / "out", shard_rows=10, bad_row="skip")
    assert (result.rows, result.skipped) == (22, 3) and "3 bad rows skipped" in str(result)
    ids = [i for path in sorted((tmp_path / "out").glob("*.parquet")) for i in pq.read_table(path)["id"].to_pylist()]
    assert ids == [i for i in range(25) if i not in (0, 12, 13)]


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
    (tmp_path / "b.png").write_bytes(b"no picture")
    broken = [{"input": "Chào."}, {"input": str(tmp_path / "b.png")}]
    with pytest.raises(ValueError, match=r"column 'input', rows 0 to 1: .*b\.png"):
        encode_corpus(model, broken, tmp_path / "broken", "input")
    assert np.abs(vectors(tmp_path / "lines") - expected[2:3]).max() < 1e-5


def test_memory_does_not_grow_with_the_corpus(tiny_model, tmp_path):
    """Peak memory of a process that encodes 1,500 rows, and of one that encodes 3 times as many."""
    tiny_model.save_pretrained(str(tmp_path / "model"))
    code = """
import resource, sys, torch
torch.set_num_threads(1)
from st_vi import load
from st_vi.encoding import encode_corpus
model, out, count = load(sys.argv[1], device="cpu"), sys.argv[2], int(sys.argv[3])
rows = ({"text": "Trời mưa to " + str(i), "note": "x" * 16_000} for i in range(count))
encode_corpus(model, rows, out, keep=["note"], shard_rows=250)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    peaks = []
    for count in (1500, 4500):  # 24 and 72 MB of text
        arguments = [tmp_path / "model", tmp_path / f"out{count}", count]
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout.split()[-1]) / 1024)
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

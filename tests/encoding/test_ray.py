"""The same vectors from two workers of a local Ray cluster."""

from __future__ import annotations

import secrets

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from st_vi.encoding import encode_corpus
from st_vi.encoding.ray import EncoderActor, encode_with_ray
from st_vi.encoding.rows import InputColumns
from tests.conftest import SENTENCES


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    import ray

    # Ray locks its clusters, and would leave the key it makes in the home folder: this one is gone with the test.
    key = tmp_path_factory.mktemp("ray") / "token"
    key.write_text(secrets.token_hex(32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(key))
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield ray
        ray.shutdown()


@pytest.mark.filterwarnings("error:The minimum number of concurrent actors")  # one worker would have it all
def test_two_workers_give_what_one_process_gives(cluster, tiny_model, tmp_path):
    """Vectors, order, chunks and what is skipped; the model's own norm is off, as `normalize` is to be seen."""
    del tiny_model[3]
    tiny_model.save_pretrained(str(tmp_path / "model"))
    texts = [" ".join(SENTENCES[: 1 + i % 8]) + f" {i}" for i in range(40)]
    texts[3], texts[7] = "\u200b", None
    rows = Dataset.from_dict({"text": texts, "year": list(range(2000, 2040))})
    settings = {"keep": ["year"], "chunk": True, "normalize": True, "bad_row": "skip"}
    encode_corpus(tiny_model, rows, tmp_path / "one", shard_rows=25, **settings)
    skipped = encode_with_ray(tmp_path / "model", rows, tmp_path / "two", concurrency=2, batch_size=10, **settings)
    assert skipped == {
        3: "column 'text': nothing to encode in '\\u200b'",
        7: "column 'text': nothing to encode in None",
    }
    order = [("id", "ascending"), ("start", "ascending")]
    one, two = (pq.read_table(sorted((tmp_path / name).glob("*.parquet"))).sort_by(order) for name in ("one", "two"))
    assert one.drop(["embedding"]).equals(two.drop(["embedding"])) and one.num_rows > 60
    assert set(two["id"].to_pylist()) == set(range(40)) - {3, 7}
    ours, theirs = (np.stack(table["embedding"].to_numpy()) for table in (one, two))
    assert np.abs(ours - theirs).max() < 1e-5 and np.abs(np.linalg.norm(theirs, axis=1) - 1).max() < 1e-5


def test_a_model_or_rows_are_no_path_of_a_model(tiny_model, tmp_path):
    rows = Dataset.from_dict({"text": SENTENCES})
    for given, path in ((tiny_model, rows), (rows, tmp_path / "model")):
        with pytest.raises(ValueError, match=f"model_path must be the folder or Hub id .* got {type(given).__name__}"):
            encode_with_ray(given, path, tmp_path / "out")


def test_files_need_ids(tmp_path):
    Dataset.from_dict({"text": SENTENCES}).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match="missing column 'id': Ray does not keep the order"):
        encode_with_ray(tmp_path / "model", tmp_path / "rows.parquet", tmp_path / "out")


def test_a_worker_names_the_bad_row_and_refuses_pictures_for_texts(tiny_model, tmp_path):
    tiny_model.save_pretrained(str(tmp_path))
    encoding = {"prompt": None, "prompt_name": None, "max_tokens": 100}
    worker = EncoderActor(str(tmp_path), InputColumns("text"), ["id"], encoding, "float32", "error", None)
    with pytest.raises(ValueError, match="column 'text', id 'b': nothing to encode in None"):
        worker(pa.table({"id": ["a", "b"], "text": ["Trời mưa.", None]}))
    with pytest.raises(ValueError, match="column 'image' holds images, and this model takes none"):
        EncoderActor(str(tmp_path), InputColumns(None, "image"), ["id"], encoding, "float32", "error", None)


def test_without_ray_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ImportError, match=r"st-vi\[ray\]"):
        encode_with_ray("model", Dataset.from_dict({"text": ["a"]}), tmp_path)

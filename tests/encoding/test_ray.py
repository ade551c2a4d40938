"""The same vectors from two workers of a local Ray cluster."""

from __future__ import annotations

import secrets

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from st_vi.encoding import encode_corpus
from st_vi.encoding.ray import encode_with_ray
from tests.conftest import SENTENCES


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    ray = pytest.importorskip("ray", reason='Ray is not installed: pip install "st-vi[ray]"')
    pytest.importorskip("ray.data", reason='Ray Data is not installed: pip install "st-vi[ray]"')
    # Ray locks its clusters, and would leave the key it makes in the home folder: this one is gone with the test.
    key = tmp_path_factory.mktemp("ray") / "token"
    key.write_text(secrets.token_hex(32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(key))
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield ray
        ray.shutdown()


def table(folder):
    return pq.read_table(folder).sort_by("id")


def vectors(folder):
    return np.stack(table(folder)["embedding"].to_numpy())


@pytest.mark.filterwarnings("error:The minimum number of concurrent actors")  # one worker would have it all
def test_two_workers_give_what_one_process_gives(cluster, tiny_model, tmp_path):
    tiny_model.save_pretrained(str(tmp_path / "model"))
    rows = Dataset.from_list([{"text": f"{SENTENCES[i % 8]} {i}", "year": 2000 + i} for i in range(60)])
    encode_corpus(tiny_model, rows, tmp_path / "one", keep=["year"], shard_rows=25)
    settings = {"keep": ["year"], "concurrency": 2, "batch_size": 10, "max_tokens": 200}
    encode_with_ray(tmp_path / "model", rows, tmp_path / "two", **settings)
    expected = pq.ParquetDataset([str(path) for path in sorted((tmp_path / "one").glob("*.parquet"))]).read()
    got = table(tmp_path / "two")
    assert got.column_names == expected.column_names == ["id", "year", "embedding"]
    assert got["id"].to_pylist() == list(range(60)) and got["year"].to_pylist() == rows["year"][:]
    assert np.abs(vectors(tmp_path / "two") - np.stack(expected["embedding"].to_numpy())).max() < 1e-5

    rows.to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match="missing column 'id': Ray does not keep the order"):
        encode_with_ray(tmp_path / "model", tmp_path / "rows.parquet", tmp_path / "three")


def test_without_ray_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ImportError, match=r"st-vi\[ray\]"):
        encode_with_ray("model", Dataset.from_dict({"text": ["a"]}), tmp_path)

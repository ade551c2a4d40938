"""FAISS finds what exact search finds, from full vectors and from bits."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from sentence_transformers.util import semantic_search

from st_vi import load
from st_vi.encoding import encode_corpus
from tests.clients.conftest import QUERIES, TEXTS

faiss = pytest.importorskip("faiss", reason='needs pip install "st-vi[clients]"')


def test_an_index_from_disk_gives_the_neighbours_of_exact_search(model, saved, tmp_path):
    index = faiss.IndexFlatIP(model.get_embedding_dimension())
    index.add(load(saved).encode_document(TEXTS))
    faiss.write_index(index, str(tmp_path / "index"))
    scores, numbers = faiss.read_index(str(tmp_path / "index")).search(load(saved).encode_query(QUERIES), 3)
    exact = semantic_search(model.encode_query(QUERIES), model.encode_document(TEXTS), top_k=3)
    assert numbers.tolist() == [[hit["corpus_id"] for hit in hits] for hits in exact]
    np.testing.assert_allclose(scores, [[hit["score"] for hit in hits] for hits in exact], atol=1e-5)


@pytest.mark.parametrize("way", ["encode", "encode_corpus"])
def test_vectors_of_unlike_lengths_are_found_by_their_cosine(tiny_model, tmp_path, way):
    model = tiny_model.eval()
    del model[3]  # Normalize
    model.prompts = {"query": "câu hỏi: ", "document": "đoạn văn: "}
    texts = [*TEXTS, *(text[: 3 + number] for number, text in enumerate(TEXTS * 4))]
    corpus = model.encode_document(texts)
    exact = semantic_search(model.encode_query(QUERIES), corpus, top_k=3)
    if way == "encode_corpus":
        rows = [{"text": text} for text in texts]
        encode_corpus(model, rows, tmp_path, prompt_name="document", normalize=True)
        vectors = np.stack(pq.read_table(tmp_path / "shard-00000.parquet")["embedding"].to_numpy())
    else:
        vectors = model.encode_document(texts, normalize_embeddings=True)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    _, numbers = index.search(model.encode_query(QUERIES, normalize_embeddings=True), 3)
    assert numbers.tolist() == [[hit["corpus_id"] for hit in hits] for hits in exact]
    index.reset()
    index.add(corpus)
    assert index.search(model.encode_query(QUERIES), 3)[1].tolist() != numbers.tolist()  # the longest are found


def test_a_binary_index_takes_the_bits_of_encode(model):
    full, queries = model.encode_document(TEXTS), model.encode_query(QUERIES)
    index = faiss.IndexBinaryFlat(model.get_embedding_dimension())
    index.add(model.encode_document(TEXTS, precision="ubinary"))
    distances, numbers = index.search(model.encode_query(QUERIES, precision="ubinary"), len(TEXTS))
    hamming = ((queries[:, None] > 0) != (full > 0)).sum(axis=2)
    assert distances.tolist() == np.sort(hamming, axis=1).tolist()
    assert distances.tolist() == np.take_along_axis(hamming, numbers, axis=1).tolist()

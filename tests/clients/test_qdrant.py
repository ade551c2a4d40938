"""Qdrant, in the memory of this process, finds what exact search finds."""

from __future__ import annotations

import pytest
from sentence_transformers.util import semantic_search

from st_vi import load
from tests.clients.conftest import QUERIES, TEXTS


@pytest.mark.slow
def test_a_collection_gives_the_neighbours_of_exact_search(model, saved):
    qdrant = pytest.importorskip("qdrant_client", reason='needs pip install "st-vi[clients]"')  # takes long to import
    models, encoder, client = qdrant.models, load(saved), qdrant.QdrantClient(":memory:")
    size = encoder.get_embedding_dimension()
    client.create_collection("tin", vectors_config=models.VectorParams(size=size, distance=models.Distance.COSINE))
    vectors = encoder.encode_document(TEXTS).tolist()
    points = [
        models.PointStruct(id=number, vector=vector, payload={"text": text})
        for number, (vector, text) in enumerate(zip(vectors, TEXTS, strict=True))
    ]
    client.upsert("tin", points)
    exact = semantic_search(model.encode_query(QUERIES), model.encode_document(TEXTS), top_k=3)
    for query, hits in zip(QUERIES, exact, strict=True):
        found = client.query_points("tin", query=encoder.encode_query(query).tolist(), limit=3).points
        assert [point.payload["text"] for point in found] == [TEXTS[hit["corpus_id"]] for hit in hits]
        assert [point.score for point in found] == pytest.approx([hit["score"] for hit in hits], abs=1e-5)
    client.close()

"""LlamaIndex: its own class over a saved folder, and an index without a language model."""

from __future__ import annotations

import numpy as np
import pytest
from sentence_transformers.util import semantic_search

from tests.clients.conftest import QUERIES, TEXTS


@pytest.fixture(scope="module")
def huggingface():
    """Imported by the tests that need it: it takes seconds, and every worker collects this file."""
    return pytest.importorskip("llama_index.embeddings.huggingface", reason='needs pip install "st-vi[clients]"')


@pytest.fixture
def embedder(huggingface, model, saved, tmp_path):
    return huggingface.HuggingFaceEmbedding(
        saved,
        trust_remote_code=True,
        query_instruction=model.prompts["query"],
        text_instruction=model.prompts["document"],
        device="cpu",
        cache_folder=str(tmp_path),
    )


@pytest.mark.slow
def test_an_index_gives_the_neighbours_of_exact_search(model, embedder):
    from llama_index.core import Document, VectorStoreIndex

    documents, queries = model.encode_document(TEXTS), model.encode_query(QUERIES)
    np.testing.assert_allclose(embedder.get_text_embedding_batch(TEXTS), documents, atol=1e-5)
    np.testing.assert_allclose([embedder.get_query_embedding(query) for query in QUERIES], queries, atol=1e-5)

    index = VectorStoreIndex.from_documents([Document(text=text) for text in TEXTS], embed_model=embedder)
    retriever = index.as_retriever(similarity_top_k=3)
    for query, hits in zip(QUERIES, semantic_search(queries, documents, top_k=3), strict=True):
        found = retriever.retrieve(query)
        assert [node.text for node in found] == [TEXTS[hit["corpus_id"]] for hit in hits]
        assert [node.score for node in found] == pytest.approx([hit["score"] for hit in hits], abs=1e-5)


def test_it_takes_no_prompt_from_the_model(huggingface, model, saved, tmp_path):
    """Hence the instructions above. When this fails, they can go, here and in the docs."""
    embedder = huggingface.HuggingFaceEmbedding(saved, trust_remote_code=True, device="cpu", cache_folder=str(tmp_path))
    np.testing.assert_allclose(embedder.get_query_embedding(TEXTS[0]), model.encode(TEXTS[0], prompt=""), atol=1e-5)

"""LangChain: its interface over `st_vi.load`, and its own class over a saved folder."""

from __future__ import annotations

import numpy as np
import pytest
from sentence_transformers.util import semantic_search

from st_vi import load
from tests.clients.conftest import QUERIES, TEXTS

embeddings = pytest.importorskip("langchain_core.embeddings", reason='needs pip install "st-vi[clients]"')


class Embeddings(embeddings.Embeddings):
    """As `docs/use-it-with.md` has it."""

    def __init__(self, path):
        self.model = load(path)

    def embed_documents(self, texts):
        return self.model.encode_document(texts).tolist()

    def embed_query(self, text):
        return self.model.encode_query(text).tolist()


def huggingface(path):
    """The class of `langchain-huggingface`, which knows nothing of the prompts and has to be told."""
    reason = "langchain-huggingface wants huggingface-hub 1, older than what is here; tested beside that"
    module = pytest.importorskip("langchain_huggingface", reason=reason)
    return module.HuggingFaceEmbeddings(
        model_name=path,
        model_kwargs={"trust_remote_code": True, "device": "cpu"},
        encode_kwargs={"prompt_name": "document"},
        query_encode_kwargs={"prompt_name": "query"},
    )


@pytest.mark.slow
@pytest.mark.parametrize("embeddings_of", [Embeddings, huggingface])
def test_a_vector_store_gives_the_neighbours_of_exact_search(model, saved, embeddings_of):
    from langchain_core.vectorstores import InMemoryVectorStore

    embedder = embeddings_of(saved)
    documents, queries = model.encode_document(TEXTS), model.encode_query(QUERIES)
    np.testing.assert_allclose(embedder.embed_documents(TEXTS), documents, atol=1e-5)
    np.testing.assert_allclose([embedder.embed_query(query) for query in QUERIES], queries, atol=1e-5)

    store = InMemoryVectorStore.from_texts(TEXTS, embedder)
    for query, hits in zip(QUERIES, semantic_search(queries, documents, top_k=3), strict=True):
        found = store.similarity_search_with_score(query, k=3)
        assert [document.page_content for document, _ in found] == [TEXTS[hit["corpus_id"]] for hit in hits]
        assert [score for _, score in found] == pytest.approx([hit["score"] for hit in hits], abs=1e-5)

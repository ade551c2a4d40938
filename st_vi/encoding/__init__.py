"""Many inputs to vectors: batches by cost, and whole corpora to Parquet, on one machine or on many."""

from st_vi.encoding.batches import encode_by_cost
from st_vi.encoding.corpus import EncodedCorpus, encode_corpus

__all__ = ["EncodedCorpus", "encode_by_cost", "encode_corpus"]

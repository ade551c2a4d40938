"""vi-mini's token vectors compared one by one (MaxSim of ColBERT, Khattab & Zaharia 2020) instead of one vector a text.

    python -m tests.benchmarks.late_interaction

Nothing is trained for it: each token of the query takes its most similar token of the passage, and the score is the
mean over the query's tokens. "And" is the sum of both scores after standardisation over the passages of each query.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from sentence_transformers import SentenceTransformer
from torch import Tensor

from st_vi.hub import load
from st_vi.recipes.ablation.tables import markdown
from tests.benchmarks.encoders import Scores, added, bm25, measure, one_vector, teacher, tfidf


def tokens(model: SentenceTransformer, texts: Sequence[str]) -> list[Tensor]:
    """Unit vectors of each text's tokens, (L, D), but those of its begin and end."""
    found = model.encode(list(texts), output_value="token_embeddings", convert_to_numpy=False)
    return [F.normalize(one.float(), dim=1)[1:-1] for one in found]


def max_sim(model: SentenceTransformer) -> Scores:
    """Mean over the query's tokens of the largest cosine with a token of the text."""

    def scores(queries: Sequence[str], texts: Sequence[str]) -> np.ndarray:
        of_texts = tokens(model, texts)
        owner = torch.repeat_interleave(torch.arange(len(texts)), torch.tensor([len(one) for one in of_texts]))
        every = torch.cat(of_texts)
        rows = []
        for query in tokens(model, queries):
            cosines = query @ every.T
            most = torch.full((len(query), len(texts)), -1.0)
            rows.append(most.scatter_reduce(1, owner.expand_as(cosines), cosines, "amax").mean(0))
        return torch.stack(rows).numpy()

    return scores


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    mini = load("vi-mini", device="cpu", model_kwargs={"dtype": "bfloat16"})
    large = teacher().bfloat16()
    ways = {
        "vi-mini, one vector": one_vector(mini),
        "vi-mini, a vector a token": max_sim(mini),
        "teacher, one vector": one_vector(large),
        "teacher, a vector a token": max_sim(large),
        "TF-IDF": tfidf,
        "BM25": bm25,
        "vi-mini, one vector, and BM25": added(one_vector(mini), bm25),
        "vi-mini, a vector a token, and BM25": added(max_sim(mini), bm25),
    }
    rows = [[name, *(f"{value:.1f}" for value in measure(way).values())] for name, way in ways.items()]
    columns = ["", "XQuAD recall@1", "without diacritics", "own questions", "without diacritics"]
    print(markdown(columns, rows))


if __name__ == "__main__":
    main()

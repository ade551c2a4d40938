"""How the head of a ViCLSR starts, on an encoder that knows something: random or as the identity.

    python -m tests.benchmarks.head_init    # from vi-mini, on the sample sets; prints a table

Every head is measured as it starts, and after a short training on the sample NLI rows.
"""

from __future__ import annotations

import tempfile

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import set_seed

from st_vi.data import nli_to_triplets, sample_nli, sample_retrieval
from st_vi.evaluation import NLISimilarityEvaluator
from st_vi.hub import pretrained
from st_vi.recipes import build_viclsr, train_viclsr

SETTINGS = {"num_train_epochs": 2, "per_device_train_batch_size": 64, "learning_rate": 5e-5, "save_strategy": "no"}
HEADS = [("random", "tanh"), ("identity", "tanh"), ("identity", "identity")]


def measured(model: SentenceTransformer) -> str:
    """Recall@1 of the held-out questions, and Spearman and triplet accuracy of the held-out NLI rows."""
    passages = {row["passage_id"]: row["passage"] for row in sample_retrieval()}
    asked, rows = sample_retrieval("test"), sample_nli("test")
    found = model.encode(asked["question"]) @ model.encode(list(passages.values())).T
    right = [list(passages)[best] == name for best, name in zip(found.argmax(axis=1), asked["passage_id"], strict=True)]
    nli = NLISimilarityEvaluator(rows["premise"], rows["hypothesis"], rows["label"])(model)
    return f"{100 * sum(right) / len(right):.1f} | {nli['nli_spearman']:.2f} | {100 * nli['triplet_accuracy']:.1f}"


def main() -> None:
    """Print a row for the encoder alone and for each head."""
    triplets = nli_to_triplets(sample_nli("train"))
    with tempfile.TemporaryDirectory() as folder:
        encoder = Transformer(pretrained("vi-mini"))
        encoder.save(folder + "/base")
        width = encoder.get_embedding_dimension()
        print("head | recall@1, NLI Spearman, triplet accuracy as it starts | after training", flush=True)
        alone = SentenceTransformer(modules=[encoder, Pooling(width, "mean"), Normalize()])
        print(f"none | {measured(alone)}", flush=True)
        for init, activation in HEADS:
            set_seed(0)
            model = build_viclsr(folder + "/base", activation, pooling="mean", head_init=init)
            before = measured(model)
            train_viclsr(model, triplets, f"{folder}/{init}-{activation}", **SETTINGS, disable_tqdm=True)
            print(f"{init}, {activation} | {before} | {measured(model)}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

"""Classifiers built on an encoder: a probe on frozen embeddings, or fine-tuning with a head.

Both protocols take rows in the canonical columns of `load_benchmark` and return one prediction per test row: a label,
or the position of the chosen option.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PrinterCallback, Trainer, TrainingArguments

from st_vi.evaluation.distinct import encode_distinct
from st_vi.stock.training import on_one_gpu


def probe(
    model: SentenceTransformer,
    train: Dataset,
    test: Dataset,
    seed: int,
    batch_size: int,
    show_progress_bar: bool,
) -> list[str] | list[int]:
    """Logistic regression on the embeddings of a frozen encoder.

    Features are standardised: u of a single text, [u, v, |u − v|, u·v] of a pair. Of a choice, every option is a
    pair with the question, right or wrong; the option that is most probably right wins.
    """
    features = [_features(model, rows, batch_size, show_progress_bar) for rows in (train, test)]
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, random_state=seed))
    if "options" not in train.column_names:
        return classifier.fit(features[0], train["label"]).predict(features[1]).tolist()
    is_right = [i == row["label"] for row in train for i in range(len(row["options"]))]
    right = classifier.fit(features[0], is_right).predict_proba(features[1])[:, 1]
    ends = np.cumsum([len(options) for options in test["options"]])[:-1]
    return [int(options.argmax()) for options in np.split(right, ends)]


def _features(model: SentenceTransformer, rows: Dataset, batch_size: int, show_progress_bar: bool) -> np.ndarray:
    columns = zip(*_inputs(rows), strict=True)
    u, *v = encode_distinct(model, *columns, batch_size=batch_size, show_progress_bar=show_progress_bar)
    return np.hstack([u, *v, np.abs(u - v[0]), u * v[0]]) if v else u


def _inputs(rows: Iterable[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """The texts of each row; of choices, those of each option, row after row."""
    inputs: list[tuple[str, ...]] = []
    for row in rows:
        if "options" in row:
            inputs += [(row["text1"], option) for option in row["options"]]
        else:
            inputs.append((row["text1"], row["text2"]) if "text2" in row else (row["text1"],))
    return inputs


def finetune(
    model: SentenceTransformer,
    train: Dataset,
    test: Dataset,
    seed: int,
    batch_size: int,
    show_progress_bar: bool,
    epochs: float,
    learning_rate: float,
) -> list[str] | list[int]:
    """Train a copy of the encoder with a linear head, by the stock `Trainer`; `model` stays as it is.

    Texts of a pair are read jointly, by the tokenizer's own pair format. Of a choice, every option is read with
    the question and gets one logit; the softmax is over the options of the row.
    """
    classes = None if "options" in train.column_names else sorted(set(train["label"]))
    with TemporaryDirectory() as folder, _generators_as_before():
        args = TrainingArguments(
            folder,
            seed=seed,
            num_train_epochs=epochs,
            learning_rate=learning_rate,
            per_device_train_batch_size=batch_size,
            per_device_eval_batch_size=batch_size,
            use_cpu=model.device.type == "cpu",
            remove_unused_columns=False,
            disable_tqdm=not show_progress_bar,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
        )
        on_one_gpu(args)  # DataParallel would part the options of a row from its label
        torch.manual_seed(seed)
        trainer = Trainer(
            _Classifier(model, num_labels=len(classes) if classes else 1),
            args,
            data_collator=_Collator(model.preprocess, classes),
            train_dataset=train,
            preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        predictions = trainer.predict(test.remove_columns("label")).predictions.tolist()  # type: ignore[union-attr]
    return [classes[i] for i in predictions] if classes else predictions


@contextmanager
def _generators_as_before() -> Iterator[None]:
    """Give back the global generators, all of which the trainer seeds: they may order the rows of a training."""
    of_python, of_numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)


class _Classifier(nn.Module):
    """Encoder, dropout, linear layer.

    A last `Normalize` is left out: on features of unit length a linear head learns so slowly that with small
    batches it stays at the majority class.
    """

    def __init__(self, model: SentenceTransformer, num_labels: int, dropout: float = 0.1) -> None:
        super().__init__()
        modules = list(model.children())
        if isinstance(modules[-1], Normalize):
            modules.pop()
        self.encoder = copy.deepcopy(nn.Sequential(*modules))
        self.dropout = nn.Dropout(dropout)
        with model.truncate_embeddings(None):
            self.head = nn.Linear(model.get_embedding_dimension(), num_labels, device=model.device)  # type: ignore[arg-type]

    def forward(
        self, num_options: Tensor | None = None, features: Any = None, labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        embeddings = self.encoder(features)["sentence_embedding"].float()
        logits = self.head(self.dropout(embeddings))
        if num_options is not None:
            options = logits.squeeze(-1).split(num_options.tolist())
            logits = pad_sequence(options, batch_first=True, padding_value=-torch.inf)
        output = {"logits": logits}
        if labels is not None:
            output["loss"] = F.cross_entropy(logits, labels)
        return output


@dataclass(frozen=True)
class _Collator:
    """Rows → features of all their texts, and labels where there are any."""

    preprocess: Callable[..., dict[str, Any]]
    classes: list[str] | None

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = {}
        if self.classes is None:
            # First: the trainer takes the length of the first tensor for the number of rows.
            batch["num_options"] = torch.tensor([len(row["options"]) for row in rows])
        inputs = [texts if len(texts) > 1 else texts[0] for texts in _inputs(rows)]
        batch["features"] = self.preprocess(inputs)
        if "label" in rows[0]:
            labels = [row["label"] for row in rows]
            batch["labels"] = torch.tensor([self.classes.index(label) for label in labels] if self.classes else labels)
        return batch

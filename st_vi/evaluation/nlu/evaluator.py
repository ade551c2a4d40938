"""The downstream evaluation of ViCLSR: accuracy and macro-F1 of classifiers built on an encoder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sklearn.metrics import accuracy_score, f1_score

from st_vi.checks import check_choice
from st_vi.evaluation.base import Evaluator, in_words, logger
from st_vi.evaluation.nlu.benchmarks import NLUBenchmark, canonical_dataset
from st_vi.evaluation.nlu.protocols import finetune, probe

Protocol = Literal["probe", "finetune"]


class NLUEvaluator(Evaluator):
    """Trains a classifier on an encoder and reports how well it does on unseen rows.

    - "probe": logistic regression on frozen embeddings, as `encode` gives them. Seconds; says what the embedding
      space holds.
    - "finetune": the encoder is trained with a linear head (dropout 0.1, un-normalised features), as in the
      paper, on a copy: the evaluated model is not changed. Pairs are read jointly, without prompts. Load the
      model in float32, and run it after training, not as an evaluator within: it is a training of its own, by
      the stock `Trainer`, and two of them share one state of accelerate.

    Metrics, all in [0, 1], prefixed by ``{benchmark.name}_{protocol}_``:

    - ``accuracy``;
    - ``macro_f1``, the mean F1 of all labels in the test set or among the predictions (of positions for a choice);
    - ``majority``, the accuracy of always answering the most frequent label (position) of the training set. A
      model whose accuracy is no higher has collapsed.

    The primary metric is the one the paper reports.

    Source: ViCLSR (arXiv 2603.21084), Table 4, fine-tunes with a classification head. *Inferred*: the paper gives
    no hyper-parameters; 3 epochs, learning rate 2e-5, batches of 16 and dropout 0.1 are usual for encoders of
    this kind. The probe is this project's own.

    Args:
        benchmark: What the columns mean; one of `NLU_BENCHMARKS` or your own.
        train: Rows to train the classifier on, in the benchmark's columns or as `load_benchmark` gives them.
        test: Rows to predict.
        protocol: "probe" or "finetune".
        seed: Seed of the classifier, its dropout and its order of rows.
        batch_size: Rows per batch.
        epochs: Epochs of fine-tuning.
        learning_rate: Learning rate of fine-tuning.
        show_progress_bar: Show the progress of encoding or training.
        write_csv: Add a line to a CSV file when an output path is given.

    Raises:
        ValueError: An unknown protocol; rows that `load_benchmark` would refuse; fewer than two different labels
            to train on.

    Example:
        >>> from datasets import Dataset
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from st_vi.evaluation import NLU_BENCHMARKS, NLUEvaluator
        >>> rows = Dataset.from_dict({"Comment": ["hay quá", "quá tệ"] * 4, "Toxicity": [0, 1] * 4})
        >>> model = SentenceTransformer(modules=[BoW(vocab=["hay", "tệ"])], device="cpu")
        >>> evaluator = NLUEvaluator(NLU_BENCHMARKS["UIT-ViCTSD-toxicity"], train=rows, test=rows)
        >>> metrics = evaluator(model)
        >>> evaluator.primary_metric, metrics[evaluator.primary_metric]
        ('UIT-ViCTSD-toxicity_probe_macro_f1', 1.0)
    """

    def __init__(
        self,
        benchmark: NLUBenchmark,
        train: Dataset,
        test: Dataset,
        protocol: Protocol = "probe",
        seed: int = 42,
        batch_size: int = 16,
        epochs: float = 3,
        learning_rate: float = 2e-5,
        show_progress_bar: bool = False,
        write_csv: bool = True,
    ) -> None:
        check_choice("protocol", protocol, Protocol)
        self.benchmark = benchmark
        self.train, self.test = canonical_dataset(benchmark, train), canonical_dataset(benchmark, test)
        self.protocol = protocol
        self.settings: dict[str, Any] = {"seed": seed, "batch_size": batch_size}
        if protocol == "finetune":
            self.settings |= {"epochs": epochs, "learning_rate": learning_rate}
        name = f"{benchmark.name}_{protocol}"
        super().__init__("nlu", benchmark.metric, name, batch_size, show_progress_bar, write_csv)
        if benchmark.kind != "choice" and len(set(self.train["label"])) < 2:
            raise ValueError(f"{benchmark.name}: all training rows have the label {self.train['label'][0]!r}")

    def _measure(self, model: SentenceTransformer) -> tuple[dict[str, float], str]:
        train_and_predict = {"probe": probe, "finetune": finetune}[self.protocol]
        predictions = train_and_predict(  # type: ignore[operator]
            model, self.train, self.test, show_progress_bar=self.show_progress_bar, **self.settings
        )
        truth = list(self.test["label"])
        majority = Counter(self.train["label"]).most_common(1)[0][0]
        metrics = {
            "accuracy": accuracy_score(truth, predictions),
            "macro_f1": f1_score(truth, predictions, average="macro", zero_division=0),
            "majority": truth.count(majority) / len(truth),
        }
        return metrics, f"{len(self.train)} rows to train on, {len(truth)} to test"

    def _log(self, metrics: Mapping[str, float], size: str, when: str) -> None:
        where = f"{self.benchmark.name} dataset{when}"
        logger.info(f"NLUEvaluator ({self.protocol}) on the {where}: {in_words(metrics)} ({size})")

    @property
    def description(self) -> str:
        """Name of the task in the model card."""
        return f"Language Understanding ({self.protocol})"

    def get_config_dict(self) -> dict[str, Any]:
        """Settings for the model card."""
        return {"protocol": self.protocol, **self.settings}

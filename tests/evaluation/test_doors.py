"""Evaluators take columns in every form, and name a primary metric that is among their figures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.evaluation import SequentialEvaluator
from sentence_transformers.sentence_transformer.modules import BoW

from st_vi.evaluation import (
    NLU_BENCHMARKS,
    CompositionEvaluator,
    GeometryEvaluator,
    NLISimilarityEvaluator,
    NLUEvaluator,
    OrderSensitivityEvaluator,
    TaskRetrievalEvaluator,
    ToleranceByClassEvaluator,
)

TEXTS = ["trời mưa", "trời nắng", "mèo", "chó"]
OTHERS = ["mưa", "trời nắng to", "mèo con", "chó con mèo"]
WRONG = ["nắng", "mưa", "chó", "mèo"]
LABELS = ["entailment", "entailment", "neutral", "contradiction"]
MADE = {
    NLISimilarityEvaluator: lambda form, name: NLISimilarityEvaluator(
        form(TEXTS), form(OTHERS), form(LABELS), name=name
    ),
    TaskRetrievalEvaluator: lambda form, name: TaskRetrievalEvaluator(
        form(TEXTS), form(WRONG), form(["a", "b", "b", "b"]), form([0.1, 0.2, 0.3, 0.5]), name=name
    ),
    CompositionEvaluator: lambda form, name: CompositionEvaluator(
        form(TEXTS), form(OTHERS), form(WRONG), form(["x", "x", "y", "y"]), name=name
    ),
    OrderSensitivityEvaluator: lambda form, name: OrderSensitivityEvaluator(
        form(TEXTS), form(OTHERS), form([["mưa trời"], ["nắng", "trời"], [], ["mèo"]]), name=name
    ),
    GeometryEvaluator: lambda form, name: GeometryEvaluator(form(TEXTS), form(WRONG), form([0, 1, 1, 0]), name=name),
    ToleranceByClassEvaluator: lambda form, name: ToleranceByClassEvaluator(form(TEXTS), form([0, 1, 1, 0]), name=name),
}
FORMS = {
    "tuple": tuple,
    # By its labels it would be read from behind.
    "Series": lambda values: pd.Series(values, index=range(len(values) - 1, -1, -1)),
    "Series of names": lambda values: pd.Series(values, index=list("abcd")),
    "array": lambda values: pd.Series(values).to_numpy() if isinstance(values[0], list) else np.array(values),
    "column": lambda values: Dataset.from_dict({"column": values})["column"],
}


@pytest.fixture(scope="module")
def model():
    return SentenceTransformer(modules=[BoW(vocab=["mưa", "trời", "mèo", "chó", "nắng", "con"])], device="cpu")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", MADE)
def test_every_form_of_a_column_gives_the_same_figures(model, kind, form):
    expected = MADE[kind](list, "")(model)
    assert MADE[kind](FORMS[form], "")(model) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("name", ["", "dev", "nli", "order", "composition", "mean"])
@pytest.mark.parametrize("kind", [k for k in MADE if k not in (GeometryEvaluator, ToleranceByClassEvaluator)])
def test_the_primary_metric_is_one_of_the_figures(model, kind, name):
    evaluator = MADE[kind](list, name)
    figures = evaluator(model)
    assert figures[evaluator.primary_metric] == evaluator(model)[evaluator.primary_metric]
    assert SequentialEvaluator([evaluator])(model)["sequential_score"] == figures[evaluator.primary_metric]


def test_nlu_says_what_it_takes():
    with pytest.raises(ValueError, match=r"expected a Dataset, got DataFrame; .*from_pandas"):
        NLUEvaluator(NLU_BENCHMARKS["ViFactCheck"], train=pd.DataFrame({"a": [1]}), test=pd.DataFrame({"a": [1]}))


@pytest.mark.parametrize("kind", MADE)
def test_columns_that_are_read_once(model, kind):
    expected = MADE[kind](list, "")(model)
    assert MADE[kind](lambda values: (value for value in values), "")(model) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("bad", [None, float("nan"), 3, pd.NA])
@pytest.mark.parametrize("kind", [k for k in MADE if k is not GeometryEvaluator])
def test_a_missing_input_is_named_by_its_row(kind, bad):
    with pytest.raises(ValueError, match=r"^Row 1 of \w+: expected an input of the model, got "):
        MADE[kind](lambda values: [values[0], bad, *values[2:]] if values is TEXTS else values, "")


@pytest.mark.parametrize("kind", MADE)
def test_a_text_in_place_of_a_column(kind):
    with pytest.raises(ValueError, match="expected a list of inputs, got the text 'abcd'"):
        MADE[kind](lambda values: "abcd" if values is TEXTS else values, "")


@pytest.mark.parametrize("bad", [None, float("nan"), ["a"]])
@pytest.mark.parametrize("kind", [GeometryEvaluator, ToleranceByClassEvaluator])
def test_a_missing_label_is_no_class(kind, bad):
    with pytest.raises(ValueError, match="Row 1 of labels: expected a label, got "):
        kind(TEXTS, labels=[1, bad, bad, 1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": ["a", None]}, "Row 1 of tasks: expected the name of a task, got None"),
        ({"tasks": ["a", "mean"]}, "Row 1 of tasks: no task can be named 'mean'"),
        ({"scores": [0.1, "x"]}, "Row 1 of scores: expected a number, got 'x'"),
        ({"scores": [0.1, float("inf")]}, "Row 1 of scores: expected a number, got inf"),
        ({"options": ["abc", None]}, "Row 0: options must be a list of texts, got 'abc'"),
    ],
)
def test_task_retrieval_names_the_bad_row(settings, message):
    with pytest.raises(ValueError, match=message):
        TaskRetrievalEvaluator(TEXTS[:2], OTHERS[:2], **({"tasks": ["a", "a"]} | settings))


def test_options_in_an_array_and_scores_that_pandas_misses(model):
    texts = (TEXTS[:2], OTHERS[:2], ["a", "a"])
    expected = TaskRetrievalEvaluator(*texts, [None, 0.5], [["mèo", "chó"], ["nắng", "mưa"]])(model)
    options = np.array([["mèo", "chó"], ["nắng", "mưa"]])
    assert TaskRetrievalEvaluator(*texts, pd.Series([pd.NA, 0.5]), options)(model) == expected


def test_ties_alone_are_no_warning(model, recwarn):
    assert np.isnan(NLISimilarityEvaluator(["a"] * 2, ["b"] * 2, ["neutral", "entailment"])(model)["nli_spearman"])
    assert not recwarn.list


@pytest.mark.parametrize("batch_size", [0, 1.5])
def test_a_batch_size_that_is_none(batch_size):
    with pytest.raises(ValueError, match=f"batch_size must be a whole number of at least 1, got {batch_size}"):
        GeometryEvaluator(TEXTS, batch_size=batch_size)


def test_the_csv_file_has_a_name_on_every_system():
    assert GeometryEvaluator(TEXTS, name='a/b: "c"?').csv_file == "geometry_evaluation_a/b_ _c___results.csv"


def test_rounding_wins_no_tie():
    """Texts of equal tokens have vectors that differ by rounding, as their batches do."""

    class Rounding(SentenceTransformer):
        def encode(self, texts, **settings):
            vectors = {"anchor": (1.0, 0.0), "better": (0.6000001, 0.8), "worse": (0.6, 0.8), "far": (0.5, 0.8)}
            return np.array([vectors[text] for text in texts], dtype=np.float32)

    model = Rounding(modules=[BoW(vocab=["mưa"])], device="cpu")
    rows = ["anchor"] * 2, ["better", "worse"], ["entailment", "contradiction"]
    assert NLISimilarityEvaluator(*rows)(model)["triplet_accuracy"] == 0
    options = {"options": [["worse"], ["anchor"]]}
    metrics = TaskRetrievalEvaluator(["anchor", "far"], ["better", "worse"], ["a"] * 2, **options)(model)
    assert metrics["a_recall@1"] == 0 and metrics["a_option_accuracy"] == 0.5


@pytest.mark.parametrize("kind", MADE)
def test_a_set_has_no_order(kind):
    with pytest.raises(ValueError, match="a set, which has no order"):
        MADE[kind](lambda values: set(map(str, values)), "")

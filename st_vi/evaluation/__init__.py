"""Evaluators with the stock `BaseEvaluator` interface."""

from st_vi.evaluation.composition import CompositionEvaluator
from st_vi.evaluation.geometry.class_tolerance import ToleranceByClassEvaluator
from st_vi.evaluation.geometry.evaluator import GeometryEvaluator
from st_vi.evaluation.nli_similarity import NLISimilarityEvaluator
from st_vi.evaluation.nlu.benchmarks import NLU_BENCHMARKS, NLUBenchmark, load_benchmark
from st_vi.evaluation.nlu.evaluator import NLUEvaluator
from st_vi.evaluation.order_sensitivity import OrderSensitivityEvaluator
from st_vi.evaluation.rating import RatingEvaluator
from st_vi.evaluation.task_retrieval import TaskRetrievalEvaluator

__all__ = [
    "NLU_BENCHMARKS",
    "CompositionEvaluator",
    "GeometryEvaluator",
    "NLISimilarityEvaluator",
    "NLUBenchmark",
    "NLUEvaluator",
    "OrderSensitivityEvaluator",
    "RatingEvaluator",
    "TaskRetrievalEvaluator",
    "ToleranceByClassEvaluator",
    "load_benchmark",
]

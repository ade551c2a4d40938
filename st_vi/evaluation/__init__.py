"""Evaluators with the stock `BaseEvaluator` interface."""

from st_vi.evaluation.geometry_evaluator import GeometryEvaluator
from st_vi.evaluation.nli_similarity import NLISimilarityEvaluator
from st_vi.evaluation.nlu import NLUEvaluator
from st_vi.evaluation.nlu_benchmarks import NLU_BENCHMARKS, NLUBenchmark, load_benchmark
from st_vi.evaluation.task_retrieval import TaskRetrievalEvaluator

__all__ = [
    "NLU_BENCHMARKS",
    "GeometryEvaluator",
    "NLISimilarityEvaluator",
    "NLUBenchmark",
    "NLUEvaluator",
    "TaskRetrievalEvaluator",
    "load_benchmark",
]

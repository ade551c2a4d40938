"""The downstream evaluation of ViCLSR: five Vietnamese language-understanding tasks."""

from st_vi.evaluation.nlu.benchmarks import NLU_BENCHMARKS, NLUBenchmark, load_benchmark
from st_vi.evaluation.nlu.evaluator import NLUEvaluator

__all__ = ["NLU_BENCHMARKS", "NLUBenchmark", "NLUEvaluator", "load_benchmark"]

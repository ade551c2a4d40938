"""Hard negatives: made from the positive, taken from its document, judged by a model, and drawn into batches."""

from st_vi.data.negatives.judged import drop_false_negatives, hardness
from st_vi.data.negatives.made import perturbed_negatives, same_document_negatives
from st_vi.data.negatives.perturbations import change_order, swap_negation, swap_number
from st_vi.data.negatives.sampling import ClusterBatchSampler, CurriculumBatchSampler, cluster_rows

__all__ = [
    "ClusterBatchSampler",
    "CurriculumBatchSampler",
    "change_order",
    "cluster_rows",
    "drop_false_negatives",
    "hardness",
    "perturbed_negatives",
    "same_document_negatives",
    "swap_negation",
    "swap_number",
]

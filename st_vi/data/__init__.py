"""Raw rows become the columns that the stock trainer expects."""

from st_vi.data.audit.leakage import leakage_report, without_leakage
from st_vi.data.audit.noisy_labels import label_suspects, score_suspects
from st_vi.data.audit.preferences import flip_rows, preference_strength
from st_vi.data.audit.quality import effective_contrastive_information
from st_vi.data.collator import MixedTaskCollator
from st_vi.data.formats import (
    combine_rows,
    dialogues_to_rows,
    instructions_to_rows,
    ocr_to_rows,
    scored_pairs_to_rows,
    vqa_to_rows,
)
from st_vi.data.generated.composition import composition_probes
from st_vi.data.negatives.judged import drop_false_negatives, hardness
from st_vi.data.negatives.made import perturbed_negatives, same_document_negatives
from st_vi.data.negatives.negation import swap_negation
from st_vi.data.negatives.perturbations import change_order, swap_number
from st_vi.data.negatives.sampling import ClusterBatchSampler, CurriculumBatchSampler, cluster_rows
from st_vi.data.nli import fact_check_to_triplets, nli_to_triplets
from st_vi.data.reading_comprehension import reading_comprehension_to_triplets
from st_vi.data.sample_sets import sample_nli, sample_retrieval, sample_sts
from st_vi.data.split import split_by_anchor, split_by_task
from st_vi.data.task_rows import check_task_rows
from st_vi.data.triplets import check_triplets
from st_vi.files.read import read_rows
from st_vi.text import strip_diacritics

__all__ = [
    "ClusterBatchSampler",
    "CurriculumBatchSampler",
    "MixedTaskCollator",
    "change_order",
    "check_task_rows",
    "check_triplets",
    "cluster_rows",
    "combine_rows",
    "composition_probes",
    "dialogues_to_rows",
    "drop_false_negatives",
    "effective_contrastive_information",
    "fact_check_to_triplets",
    "flip_rows",
    "hardness",
    "instructions_to_rows",
    "label_suspects",
    "leakage_report",
    "nli_to_triplets",
    "ocr_to_rows",
    "perturbed_negatives",
    "preference_strength",
    "read_rows",
    "reading_comprehension_to_triplets",
    "same_document_negatives",
    "sample_nli",
    "sample_retrieval",
    "sample_sts",
    "score_suspects",
    "scored_pairs_to_rows",
    "split_by_anchor",
    "split_by_task",
    "strip_diacritics",
    "swap_negation",
    "swap_number",
    "vqa_to_rows",
    "without_leakage",
]

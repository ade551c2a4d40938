"""From raw rows to the columns that the stock trainer eats."""

from st_vi.data.adapt import fact_check_to_triplets, nli_to_triplets, reading_comprehension_to_triplets
from st_vi.data.collator import MixedTaskCollator
from st_vi.data.formats import (
    combine_rows,
    dialogues_to_rows,
    instructions_to_rows,
    ocr_to_rows,
    scored_pairs_to_rows,
    vqa_to_rows,
)
from st_vi.data.read import read_rows
from st_vi.data.sample_sets import sample_nli, sample_sts
from st_vi.data.split import split_by_anchor, split_by_task
from st_vi.data.task_rows import check_task_rows
from st_vi.data.triplets import Triplets, check_triplets

__all__ = [
    "MixedTaskCollator",
    "Triplets",
    "check_task_rows",
    "check_triplets",
    "combine_rows",
    "dialogues_to_rows",
    "fact_check_to_triplets",
    "instructions_to_rows",
    "nli_to_triplets",
    "ocr_to_rows",
    "read_rows",
    "reading_comprehension_to_triplets",
    "sample_nli",
    "sample_sts",
    "scored_pairs_to_rows",
    "split_by_anchor",
    "split_by_task",
    "vqa_to_rows",
]

"""From raw rows to the columns that the stock trainer eats."""

from st_vi.data.adapt import fact_check_to_triplets, nli_to_triplets, reading_comprehension_to_triplets
from st_vi.data.collator import MixedTaskCollator
from st_vi.data.read import read_rows
from st_vi.data.sample_sets import sample_nli, sample_sts
from st_vi.data.split import split_by_anchor
from st_vi.data.task_rows import check_task_rows
from st_vi.data.triplets import Triplets, check_triplets

__all__ = [
    "MixedTaskCollator",
    "Triplets",
    "check_task_rows",
    "check_triplets",
    "fact_check_to_triplets",
    "nli_to_triplets",
    "read_rows",
    "reading_comprehension_to_triplets",
    "sample_nli",
    "sample_sts",
    "split_by_anchor",
]

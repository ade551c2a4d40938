"""Loss terms: frozen dataclasses with their equations, called with a `PairBatch`."""

from st_vi.terms.attraction_repulsion import AttractionRepulsion
from st_vi.terms.contrastive import HardestNegativeMargin, InfoNCE
from st_vi.terms.debiased_info_nce import DebiasedInfoNCE
from st_vi.terms.group_ordering import GroupOrdering
from st_vi.terms.irpo import IRPO
from st_vi.terms.learned import LearnedTerm
from st_vi.terms.listwise_distillation import ListwiseDistillation
from st_vi.terms.multi_view_singular_value import MultiViewSingularValue
from st_vi.terms.nested_ordinal import NestedOrdinal
from st_vi.terms.pairs import PairBatch, View
from st_vi.terms.rank_list_style import RankListStyle
from st_vi.terms.scored import CosineAlignment, PairwiseRank, ScoreMSE
from st_vi.terms.sim_lap import SimLAP
from st_vi.terms.similarity_decorrelation import SimilarityDecorrelation
from st_vi.terms.soft_info_nce import SoftInfoNCE
from st_vi.terms.soft_label_kl import SoftLabelKL
from st_vi.terms.sup_re_mix import SupReMix
from st_vi.terms.teacher_vectors import TeacherCosine, TeacherSimilarities
from st_vi.terms.term import Term
from st_vi.terms.weighted_negatives import WeightedNegatives

__all__ = [
    "IRPO",
    "AttractionRepulsion",
    "CosineAlignment",
    "DebiasedInfoNCE",
    "GroupOrdering",
    "HardestNegativeMargin",
    "InfoNCE",
    "LearnedTerm",
    "ListwiseDistillation",
    "MultiViewSingularValue",
    "NestedOrdinal",
    "PairBatch",
    "PairwiseRank",
    "RankListStyle",
    "ScoreMSE",
    "SimLAP",
    "SimilarityDecorrelation",
    "SoftInfoNCE",
    "SoftLabelKL",
    "SupReMix",
    "TeacherCosine",
    "TeacherSimilarities",
    "Term",
    "View",
    "WeightedNegatives",
]

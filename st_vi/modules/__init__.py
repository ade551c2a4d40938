"""Modules for a stock `SentenceTransformer`. Saved models store their import paths, so files here must not move."""

from st_vi.modules.attention_pooling import AttentionPooling
from st_vi.modules.mlp_head import MLPHead
from st_vi.modules.qwen2_vl import Qwen2VLTransformer
from st_vi.modules.rating_head import RatingHead
from st_vi.modules.task_router import TaskRouter
from st_vi.modules.word_segmentation import WordSegmentedTransformer

__all__ = [
    "AttentionPooling",
    "MLPHead",
    "Qwen2VLTransformer",
    "RatingHead",
    "TaskRouter",
    "WordSegmentedTransformer",
]

"""Plans: whether training or encoding fits into memory, and how long it takes, from a configuration alone."""

from st_vi.recipes.plan.encoding import EncodingPlan, plan_encoding
from st_vi.recipes.plan.shape import ModelShape, read_shape
from st_vi.recipes.plan.training import TrainingPlan, plan_training

__all__ = ["EncodingPlan", "ModelShape", "TrainingPlan", "plan_encoding", "plan_training", "read_shape"]

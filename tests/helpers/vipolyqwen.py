"""Arguments of a short training of viPolyQwen, and two ways to disturb it."""

from __future__ import annotations

from sentence_transformers.base.evaluation import BaseEvaluator
from transformers import TrainerCallback

SETTINGS = {
    "num_train_epochs": 2,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "save_strategy": "steps",
    "save_steps": 3,
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "disable_tqdm": True,
    "use_cpu": True,
}


class Interruption(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 5:
            raise KeyboardInterrupt


class BestIsStepThree(BaseEvaluator):
    def __init__(self):
        super().__init__()
        self.primary_metric, self.weights = "liked", None

    def __call__(self, model, output_path=None, epoch=-1, steps=-1):
        if steps == 3:
            self.weights = {name: value.clone() for name, value in model.state_dict().items()}
        return {"liked": float(steps == 3)}

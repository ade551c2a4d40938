"""One step of viPolyQwen at the size of Qwen2-VL-2B, with random weights: ``python -m tests.benchmarks.real_size``.

Prints one JSON object: parameters, learning rates, seconds, peak memory. Needs 4.4 GB on disk under --folder, which
are deleted afterwards, and 12 GB of memory (6 with --lora).
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from transformers import Qwen2VLConfig, Qwen2VLModel

from st_vi import DLELoss, build_vipolyqwen
from st_vi.recipes import vipolyqwen_training_arguments
from st_vi.recipes.examples.small_models import small_qwen2_vl

TEXTS = ["Một hình tròn đỏ.", "Hai ngôi sao vàng.", "Hôm nay trời mưa."]

# What Qwen/Qwen2-VL-2B-Instruct publishes in its config.json.
TEXT_CONFIG: dict[str, Any] = {
    "vocab_size": 151_936,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    "tie_word_embeddings": True,
}
VISION_CONFIG: dict[str, Any] = {
    "depth": 32,
    "embed_dim": 1280,
    "num_heads": 16,
    "mlp_ratio": 4,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "in_channels": 3,
    "hidden_size": 1536,
}


def save_processor_and_config(folder: str | Path) -> Qwen2VLConfig:
    """Save Qwen2-VL-2B's configuration in `folder`, and a small tokenizer: all other rows of the 151,936 are spare."""
    small_qwen2_vl(TEXTS, folder, vocab_size=300, width=32, layers=1, vision_width=32, vision_layers=1)
    small = Qwen2VLConfig.from_pretrained(folder)
    ids = {name: getattr(small.text_config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    kinds = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    config = Qwen2VLConfig(
        text_config=TEXT_CONFIG | ids,
        vision_config=VISION_CONFIG,
        tie_word_embeddings=True,
        **{name: getattr(small, name) for name in kinds},
    )
    config.save_pretrained(folder)
    return config


def learning_rates(model: SentenceTransformer, trainer: SentenceTransformerTrainer) -> dict[str, dict[str, Any]]:
    """For each learning rate: tensors and weights that train with it, of the vision tower and of all else."""
    groups = trainer.optimizer.param_groups
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    counted: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = "vision tower" if ".visual." in name else "all else"
            rate = str(rates.get(id(parameter), "in no group"))
            entry = counted.setdefault(part, {}).setdefault(rate, {"tensors": 0, "weights": 0})
            entry["tensors"] += 1
            entry["weights"] += parameter.numel()
    return counted


def optimizer_of(model: SentenceTransformer, loss: DLELoss, folder: str | Path) -> SentenceTransformerTrainer:
    """The stock trainer with the recipe's arguments, its optimizer made and nothing trained."""
    arguments = vipolyqwen_training_arguments(folder, use_cpu=True, eval_strategy="no", bf16=False)
    trainer = SentenceTransformerTrainer(model=model, args=arguments, loss=loss)
    trainer.create_optimizer()
    return trainer


def one_batch(model: SentenceTransformer, loss: DLELoss) -> dict[str, Any]:
    """Forward and backward of four rows, two with an image of 112×112 pixels, with gradient checkpointing."""
    model.train()
    model.gradient_checkpointing_enable()
    red, blue = (Image.new("RGB", (112, 112), colour) for colour in ("red", "blue"))
    anchors = ["<text_pair> Hôm nay trời mưa.", "<text_pair> Hai ngôi sao.", *_asked(red, blue)]
    positives = ["Trời mưa.", "Hai ngôi sao vàng.", "Màu đỏ.", "Màu xanh."]
    labels = torch.tensor([[0, 0.9], [0, 0.4], [3, float("nan")], [3, float("nan")]])  # text_pair and vqa_single
    features = [model.preprocess(side) for side in (anchors, positives)]
    started = time.perf_counter()
    value = sum(loss(features, labels).values())
    forward = time.perf_counter()
    value.backward()
    done = time.perf_counter()
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradients = {name: p.grad for name, p in trainable.items() if p.grad is not None}
    return {
        "loss": round(value.item(), 4),
        "forward_seconds": round(forward - started, 1),
        "backward_seconds": round(done - forward, 1),
        "tensors_with_gradient": f"{len(gradients)} of {len(trainable)}",
        "without_gradient": sorted(trainable.keys() - gradients.keys()),
        "gradients_finite": all(bool(gradient.isfinite().all()) for gradient in gradients.values()),
    }


def _asked(*pictures: Image.Image) -> list[dict[str, Any]]:
    return [{"text": "<vqa_single> Màu gì?", "image": picture} for picture in pictures]


def run(folder: Path, lora: bool) -> dict[str, Any]:
    """Save a random model, build viPolyQwen on it, one batch."""
    torch.manual_seed(0)
    started = time.perf_counter()
    config = save_processor_and_config(folder)
    config.dtype = torch.bfloat16
    base = Qwen2VLModel._from_config(config)
    base.save_pretrained(folder)
    del base
    saved = time.perf_counter()
    model = build_vipolyqwen(folder, lora=lora, max_pixels=112 * 112, model_kwargs={"dtype": torch.bfloat16})
    built = time.perf_counter()
    loss = DLELoss(model)
    trainer = optimizer_of(model, loss, folder / "out")
    return {
        "lora": lora,
        "threads": torch.get_num_threads(),
        "dtype": str(model[0].model.dtype),
        "parameters": sum(p.numel() for p in model.parameters()),
        "backbone_parameters": sum(p.numel() for p in model[0].parameters()),
        "modules": [type(module).__name__ for module in model],
        "trained_at": learning_rates(model, trainer),
        "save_random_base_seconds": round(saved - started, 1),
        "build_seconds": round(built - saved, 1),
        **one_batch(model, loss),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", help="where the temporary folder is made")
    parser.add_argument("--lora", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        print(json.dumps(run(Path(folder), options.lora), indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()

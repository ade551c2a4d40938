"""Demo of viPolyQwen on generated images, without downloads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformers import set_seed

from st_vi.data.generated.rows import generated_rows, texts_of
from st_vi.data.generated.scenes import Scene, Shape, draw
from st_vi.hub import load
from st_vi.recipes.examples.demo import demo_folder
from st_vi.recipes.examples.small_models import small_qwen2_vl
from st_vi.recipes.training.progress import Bar
from st_vi.recipes.vipolyqwen import build_vipolyqwen, train_vipolyqwen, vipolyqwen_evaluator

if TYPE_CHECKING:
    from PIL import Image

KINDS = ("questions", "image_to_text", "text_to_image")
SMALL_MODEL: dict[str, Any] = {"vocab_size": 600, "width": 96, "layers": 2, "vision_width": 96, "vision_layers": 2}
SMALL_TRAINING: dict[str, Any] = {
    "per_device_train_batch_size": 48,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1.5e-3,
    "learning_rate_mapping": {},  # nothing is pretrained, so all parts have the same learning rate
    "save_strategy": "no",
}
"""Stock training arguments for a small, randomly initialised model."""
SMALL_PIXELS = 56 * 56
"""Four visual tokens are enough for a scene, and fastest to learn for a small model."""
SCENE = Scene((Shape("hình tròn", "đỏ", "to", (0, 0)), Shape("ngôi sao", "xanh dương", "to", (2, 2))))
TEXTS = (
    "Trong ảnh có một hình tròn đỏ và một ngôi sao xanh dương.",
    "Trong ảnh có một hình vuông đỏ và một ngôi sao vàng.",
    "Trong ảnh có ba hình tam giác tím và một hình chữ nhật đen.",
)


@dataclass(frozen=True)
class VisionDemoResult:
    """Results of the demo.

    Attributes:
        figures: Recall@1 on unseen compositions before and after training, and at chance, by kind of rows, in [0, 1].
        texts: Texts to compare with; the first describes the image.
        similarities: Cosines of the image with the texts, (3,), by the reloaded model.
    """

    figures: dict[str, tuple[float, float, float]]
    picture: Image.Image
    texts: Sequence[str]
    similarities: Tensor


def run_vision_demo(
    output_dir: str | Path, steps: int = 400, rows: int = 2000, test_rows: int = 100, seed: int = 0
) -> VisionDemoResult:
    """Train a small, randomly initialised Qwen2-VL on so many rows of each kind, reload it and encode an image.

    The base ("base"), the trained model ("model") and the image ("scene.png") are saved in a `demo_folder`.
    """
    output_dir = demo_folder(output_dir)
    train, test = generated_rows("train", rows, seed, KINDS), generated_rows("test", test_rows, seed, KINDS)
    small_qwen2_vl(texts_of(train), output_dir / "base", seed=seed, **SMALL_MODEL)
    set_seed(seed)  # for pooling and head
    model = build_vipolyqwen(output_dir / "base", embedding_dimension=SMALL_MODEL["width"], max_pixels=SMALL_PIXELS)
    evaluator = vipolyqwen_evaluator(test, write_csv=False)

    before = evaluator(model)
    settings = SMALL_TRAINING | {"max_steps": steps, "logging_strategy": "no", "seed": seed}
    train_vipolyqwen(
        model, train, output_dir / "model", info_nce_warm_up=0.5, overwrite=True, callbacks=[Bar()], **settings
    )
    after = evaluator(model)

    picture = draw(SCENE)
    picture.save(output_dir / "scene.png")
    reloaded = load(output_dir / "model")
    embeddings = reloaded.encode([picture, *TEXTS], convert_to_tensor=True)
    figures = {kind: (before[f"{kind}_recall@1"], after[f"{kind}_recall@1"], after[f"{kind}_chance"]) for kind in KINDS}
    return VisionDemoResult(
        figures,
        picture,
        TEXTS,
        model.similarity(embeddings[:1], embeddings[1:])[0].cpu(),
    )

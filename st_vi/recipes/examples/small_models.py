"""Small, randomly initialised models with their own tokenizers, for offline use."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (  # type: ignore[attr-defined]
    Qwen2TokenizerFast,
    Qwen2VLConfig,
    Qwen2VLImageProcessor,
    Qwen2VLModel,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

_QWEN2_VL_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]

# As in Qwen2-VL-Instruct, including the default system message.
_CHAT_TEMPLATE = """\
{%- for message in messages %}
{%- if loop.first and message['role'] != 'system' %}{{ '<|im_start|>system
You are a helpful assistant.<|im_end|>
' }}{% endif %}
{{- '<|im_start|>' + message['role'] + '
' }}
{%- if message['content'] is string %}{{ message['content'] }}{% else %}
{%- for part in message['content'] %}
{%- if part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- elif part['type'] == 'video' %}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}
{%- else %}{{ part['text'] }}{% endif %}
{%- endfor %}{% endif %}
{{- '<|im_end|>
' }}
{%- endfor %}"""


def small_qwen2_vl(
    texts: Sequence[str],
    folder: str | Path,
    *,
    vocab_size: int = 2000,
    width: int = 128,
    layers: int = 3,
    vision_width: int = 128,
    vision_layers: int = 3,
    initializer_range: float = 0.05,
    spare_rows: int = 8,
    seed: int = 0,
) -> None:
    """Save a randomly initialised Qwen2-VL of this size and its processor with a BPE trained on `texts` in `folder`.

    Args:
        texts: Training texts of the tokenizer.
        folder: Output folder; created if needed.
        vocab_size: Vocabulary size of the byte-level BPE without special tokens, at least 256.
        width: Width of the language model, a multiple of 32 (four heads of even size).
        layers: Decoder layers.
        vision_width: Width of the vision tower, a multiple of 16.
        vision_layers: Layers of the vision tower.
        initializer_range: Standard deviation of the weights. The 0.02 of Qwen2-VL is for wider models: at this size,
            all vectors would be nearly equal.
        spare_rows: Extra embedding rows, as Qwen2-VL has; enough for the five prefixes of viPolyQwen.
        seed: Seed for the weights.

    Example:
        >>> from st_vi import build_vipolyqwen
        >>> from st_vi.recipes.examples.small_models import small_qwen2_vl
        >>> texts = ["Một hình tròn đỏ.", "Hai ngôi sao vàng."]
        >>> small_qwen2_vl(texts, "outputs/small", vocab_size=300)  # doctest: +SKIP
        >>> model = build_vipolyqwen("outputs/small", embedding_dimension=128)  # doctest: +SKIP
    """
    tokenizer = _byte_level_bpe(texts, vocab_size)
    ids = dict(zip(_QWEN2_VL_TOKENS, tokenizer.convert_tokens_to_ids(_QWEN2_VL_TOKENS), strict=True))
    head = width // 4
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer) + spare_rows,
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "initializer_range": initializer_range,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [head // 4, head // 8, head // 8],
            },
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": tokenizer.eos_token_id,  # otherwise the trainer changes it with a warning
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": vision_layers,
            "embed_dim": vision_width,
            "hidden_size": width,
            "num_heads": max(2, vision_width // 32),
            "mlp_ratio": 2,
            "initializer_range": initializer_range,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    torch.manual_seed(seed)
    Qwen2VLModel(config).save_pretrained(folder)
    Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size={"shortest_edge": 28 * 28, "longest_edge": 16 * 28 * 28}),
        chat_template=_CHAT_TEMPLATE,
    ).save_pretrained(folder)


def _byte_level_bpe(texts: Sequence[str], vocab_size: int) -> Qwen2TokenizerFast:
    """Byte-level BPE trained on `texts`, with the special tokens of Qwen2-VL after the ordinary ones."""
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    )
    model = json.loads(bpe.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Qwen2TokenizerFast(vocab=model["vocab"], merges=merges, model_max_length=2048)
    tokenizer.add_tokens(_QWEN2_VL_TOKENS, special_tokens=True)
    return tokenizer

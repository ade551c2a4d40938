"""A tiny random Qwen2-VL with its own tokenizer, so that multimodal tests run offline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    Qwen2TokenizerFast,
    Qwen2VLConfig,
    Qwen2VLImageProcessor,
    Qwen2VLModel,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from tests.conftest import SENTENCES

SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]

# As in Qwen2-VL-Instruct, down to the system message that the template adds of its own accord.
CHAT_TEMPLATE = """\
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


def tiny_qwen2_tokenizer(sentences: Sequence[str] = SENTENCES, vocab_size: int = 400) -> Qwen2TokenizerFast:
    """Byte-level BPE trained on `sentences`, with the special tokens of Qwen2-VL after the ordinary ones."""
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        sentences, trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    )
    model = json.loads(bpe.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Qwen2TokenizerFast(vocab=model["vocab"], merges=merges, model_max_length=2048)
    tokenizer.add_tokens(SPECIAL_TOKENS, special_tokens=True)
    return tokenizer


def save_tiny_qwen2_vl(
    path: str | Path,
    *,
    sentences: Sequence[str] = SENTENCES,
    vocab_size: int = 400,
    hidden_size: int = 64,
    layers: int = 2,
    vision_depth: int = 2,
    spare_rows: int = 8,
    seed: int = 0,
) -> Path:
    """Save a random Qwen2-VL and its processor into `path`, as transformers does; returns `path`.

    Args:
        path: A folder, made if absent.
        sentences: What the tokenizer is trained on.
        vocab_size: Of the byte-level BPE, special tokens apart; at least 256.
        hidden_size: Width of the language model, a multiple of 32 (four heads of even size).
        layers: Decoder layers.
        vision_depth: Layers of the vision tower.
        spare_rows: Embedding rows beyond the tokenizer: 8 of the real model's are enough for five prefixes.
        seed: Of the weights.
    """
    tokenizer = tiny_qwen2_tokenizer(sentences, vocab_size)
    ids = dict(zip(SPECIAL_TOKENS, tokenizer.convert_tokens_to_ids(SPECIAL_TOKENS), strict=True))
    head = hidden_size // 4
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer) + spare_rows,
            "hidden_size": hidden_size,
            "intermediate_size": 2 * hidden_size,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "initializer_range": 0.2,  # otherwise every vector of so small a model looks the same
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [head // 4, head // 8, head // 8],
            },
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": vision_depth,
            "embed_dim": 32,
            "hidden_size": hidden_size,
            "num_heads": 2,
            "mlp_ratio": 2,
            "initializer_range": 0.2,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    torch.manual_seed(seed)
    Qwen2VLModel(config).save_pretrained(path)
    Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size={"shortest_edge": 28 * 28, "longest_edge": 16 * 28 * 28}),
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(path)
    return Path(path)

"""A small, randomly initialised encoder of text, for what trains on one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel


def small_encoder(texts: Sequence[str], folder: str | Path, width: int = 256, layers: int = 1) -> None:
    """Save a randomly initialised XLM-R of this width and a BPE tokenizer trained on `texts` in `folder`."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=4000, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    ends = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> </s> $B </s>", ends)
    roles = ("bos", "pad", "eos", "unk", "mask", "cls", "sep")
    names = dict(zip((f"{role}_token" for role in roles), [*special, "<s>", "</s>"], strict=True))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **names).save_pretrained(folder)
    config = XLMRobertaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * width,
        max_position_embeddings=130,
        initializer_range=0.05,
    )
    XLMRobertaModel(config).save_pretrained(folder)


def change_weights(folder: str | Path) -> None:
    """Change the first weights of a saved model in place, as training into the same folder does."""
    (file,) = sorted(Path(folder).glob("*.safetensors"))
    weights = {name: weight + 0.01 for name, weight in load_file(file).items()}
    save_file(weights, file, {"format": "pt"})

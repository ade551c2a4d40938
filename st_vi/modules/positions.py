"""The number of tokens that an encoder can take."""

from __future__ import annotations

from transformers import PretrainedConfig

# These number positions from the padding index on, so the first ones are never used.
_OFFSET_BY_PADDING = {"camembert", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"}


def usable_positions(config: PretrainedConfig) -> int | float:
    """The longest input in tokens for which `config` has positions; infinity if it sets no limit.

    RoBERTa models (XLM-R, PhoBERT) leave 2 of their positions unused: PhoBERT has 258 and uses 256.

    Example:
        >>> from transformers import RobertaConfig
        >>> from st_vi.modules.positions import usable_positions
        >>> usable_positions(RobertaConfig(max_position_embeddings=258, pad_token_id=1))
        256
    """
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if positions is None or positions < 0:
        return float("inf")
    if config.model_type in _OFFSET_BY_PADDING:
        positions -= config.pad_token_id + 1
    return positions

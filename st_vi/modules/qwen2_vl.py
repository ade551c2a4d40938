"""Qwen2-VL as the backbone of viPolyQwen: text, pictures and both, with the task's prefix before the text."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modality import InputFormatter
from torch import Tensor
from transformers import PretrainedConfig
from transformers.image_utils import SizeDict
from transformers.utils import is_flash_attn_2_available, is_torchvision_available, is_vision_available  # type: ignore[attr-defined]
from transformers.utils.versions import require_version

from st_vi.inputs.kinds import read_input, without_marks
from st_vi.modules.distinct_pictures import DistinctPictures
from st_vi.modules.model_card import with_own_card
from st_vi.modules.saved_module import declare_requirement
from st_vi.modules.tokenizers import own_tokenizer
from st_vi.modules.whole_backbone import whole_backbone
from st_vi.stock.models import OpenTransformer
from st_vi.tasks import PREFIXES
from st_vi.text import is_blank, is_unicode

logger = logging.getLogger(__name__)

Template = Literal["plain", "chat"]

_MODEL_TYPES = ("qwen2_vl", "qwen2_5_vl")

_PLAIN = """\
{%- for message in messages %}
{%- if message['content'] is string %}{{ message['content'] }}{% else %}
{%- for part in message['content'] %}
{%- if part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- elif part['type'] == 'video' %}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}
{%- else %}{{ part['text'] }}{% endif %}
{%- endfor %}{% endif %}
{%- endfor %}"""


class Qwen2VLTransformer(OpenTransformer):
    """The stock `Transformer` over a Qwen2-VL or Qwen2.5-VL, with what viPolyQwen adds to it.

    Inputs are as in stock: a text, a picture (PIL, path, URL, bytes, array), ``{"text": …, "image": …}`` with one
    picture or a list of them, a video, a conversation; and any mixture of these in one batch. Pictures come before
    the text, whatever the order of the dict; a None in the dict counts as absent.

    - **Pictures** are opened by `st_vi.inputs.pictures.open_image`, as in training: upright, on white, of 8 bits.
    - **Texts.** ``{"text": …}`` is text, whatever it says. A string by itself is a picture where it is an address or
      a path of one (`st_vi.inputs.kinds.is_picture`); a picture that is not there is an error. The marks
      of pictures, such as ``<|image_pad|>``, are text like any other where they come in a text.
    - **Pixel budget.** Every picture is scaled to between `min_pixels` and `max_pixels`, up to rounding to whole
      visual tokens of 28×28 pixels each. Videos keep the budget of the base model's video processor.
    - **Prefixes.** Each is one special token. The embeddings of those the tokenizer did not have start as the mean
      of all others; a saved model that is loaded again keeps what it has learned. An adapter (LoRA) saves no
      embeddings by itself: give it the prefixes' ids as ``trainable_token_indices``.
    - **Prompts.** ``prompt_name="ocr"`` or ``prompt="<ocr>"`` goes right before the user's text, ``"<ocr> text"``;
      a picture without text gets the prefix as its text. (Stock makes a system message of it.) No prompt gives the
      general embedding. `default_prompts` names one prompt for each prefix.
    - **Template.** "plain" is the vision tokens, then the text, nothing else; "chat" is the model's own template,
      with the input as the user's message.
    - **Repeated pictures** in a batch go through the vision tower once.
    - **FlashAttention 2** is used where transformers finds it and the weights are in half precision, unless
      ``model_kwargs`` names another ``attn_implementation``. Inputs are always padded: Qwen2-VL's position ids do
      not allow the flattening that comes with it in stock.

    Writes ``token_embeddings`` (B, N, D). The features keep ``input_ids`` (B, N) and the grid of every picture,
    ``image_grid_thw`` (pictures, 3), from which `patch_positions` tells which token is which patch. Not written is
    ``prompt_length``: the prompt's place depends on the pictures before it, so that
    ``AttentionPooling(include_prompt=False)`` keeps the prompt too.

    Source: viPolyQwen, Sections on the backbone and on prefixes (arXiv 2409.12191 for Qwen2-VL). *Inferred*: the
    plain template and the pixel budget, which the paper does not give.

    Args:
        model_name_or_path: A model on the Hub or in a folder, such as "Qwen/Qwen2-VL-2B-Instruct".
        min_pixels: At least 1; the default makes 4 visual tokens.
        max_pixels: At least `min_pixels`; the default makes 512 visual tokens.
        prefixes: Special tokens, distinct and not empty.
        template: "plain" or "chat".
        **kwargs: As for the stock `Transformer`.

    Raises:
        ImportError: Pillow or torchvision is not installed.
        ValueError: An argument is out of its range, the base model is not a Qwen2-VL, or "chat" is asked of a
            model without a chat template, such as one that was saved with "plain".

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from st_vi.modules import AttentionPooling
        >>> from st_vi.modules.qwen2_vl import Qwen2VLTransformer
        >>> backbone = Qwen2VLTransformer("Qwen/Qwen2-VL-2B-Instruct")  # doctest: +SKIP
        >>> pooling = AttentionPooling(backbone.get_embedding_dimension())  # doctest: +SKIP
        >>> model = SentenceTransformer(
        ...     modules=[backbone, pooling], prompts=backbone.default_prompts()
        ... )  # doctest: +SKIP
        >>> receipt = {"image": "receipt.jpg", "text": "Tổng cộng bao nhiêu?"}
        >>> model.encode(["Hôm nay trời mưa.", receipt])  # doctest: +SKIP
        >>> model.encode(receipt, prompt_name="vqa_single")  # doctest: +SKIP
    """

    config_keys: list[str] = [  # noqa: RUF012
        *OpenTransformer.config_keys,
        "min_pixels",
        "max_pixels",
        "prefixes",
        "template",
    ]

    def __init__(
        self,
        model_name_or_path: str,
        *,
        min_pixels: int = 4 * 28 * 28,
        max_pixels: int = 512 * 28 * 28,
        prefixes: Sequence[str] = PREFIXES,
        template: Template = "plain",
        **kwargs: Any,
    ) -> None:
        _check_arguments(min_pixels, max_pixels, prefixes, template)
        if not (is_vision_available() and is_torchvision_available()):
            raise ImportError('Qwen2-VL needs Pillow and torchvision: pip install "st-vi[vision]"')
        if template == "plain":
            kwargs["processor_kwargs"] = {**(kwargs.get("processor_kwargs") or {}), "chat_template": _PLAIN}
        super().__init__(model_name_or_path, **{"unpad_inputs": False, **kwargs})
        if template == "chat" and self.processor.chat_template in (None, _PLAIN):
            raise ValueError(f'{model_name_or_path} has no chat template: use template="plain"')
        self.min_pixels, self.max_pixels = min_pixels, max_pixels
        self.prefixes = list(prefixes)
        self.template = template
        self.input_formatter = _PromptBeforeText(
            self.config.model_type,
            message_format="structured",
            processor=self.processor,
            supported_modalities=self.modalities,
        )
        self._set_pixel_budget()
        self._add_prefixes()
        self.distinct_pictures = DistinctPictures(self.model.visual)  # type: ignore[arg-type]
        if "attn_implementation" not in (kwargs.get("model_kwargs") or {}):
            self._prefer_flash_attention()

    def default_prompts(self) -> dict[str, str]:
        """One prompt for each prefix, to be a model's ``prompts``: ``{"ocr": "<ocr> ", …}``."""
        return {prefix.strip("<>"): f"{prefix} " for prefix in self.prefixes}

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Preprocess as the stock module does, with errors that name the input.

        Raises:
            ValueError: A dict or conversation is empty (no picture, and no text but blanks), a text is no Unicode (it
                has half of a surrogate pair), a picture is not there or cannot be used (see `open_image`), or a video
                has values that are NaN or infinite. The number given counts within the batch, and `encode` sorts its
                inputs by length before it makes batches: the input itself is shown, too.
        """
        read = [self._read(number, item) for number, item in enumerate(inputs)]
        if not _is_unicode(prompt):
            raise ValueError(f"the prompt {prompt!r:.100} is no Unicode text: it has half of a surrogate pair")
        try:
            return self._checked(read, prompt, kwargs)
        except Exception:  # of the formatter, torchvision, the tokenizer: of many kinds
            for number, item in enumerate(read):  # whose fault was it?
                try:
                    self._checked([item], prompt, kwargs)
                except Exception as error:
                    raise ValueError(f"{_name(number, inputs[number])}: {error or type(error).__name__}") from error
            raise

    def _read(self, number: int, item: Any) -> Any:
        """An input as stock cannot misunderstand it."""
        if isinstance(item, str) and is_blank(item):
            # As in other models, a blank text is its special tokens; the plain template would leave nothing at all.
            return {"text": self.tokenizer.pad_token}  # type: ignore[union-attr]
        if _is_empty(item):
            raise ValueError(f"{_name(number, item)} is empty: give a text, an image or both")
        if not _is_unicode(item):
            raise ValueError(f"{_name(number, item)} is no Unicode text: it has half of a surrogate pair")
        try:
            return read_input(item)
        except Exception as error:  # of many kinds: of files, of the web
            raise ValueError(f"{_name(number, item)}: {error or type(error).__name__}") from error

    def _checked(self, inputs: Sequence[Any], prompt: str | None, kwargs: dict[str, Any]) -> dict[str, Any]:
        features = super().preprocess(inputs, prompt=prompt, **kwargs)
        if not features["attention_mask"].any(dim=1).all():
            raise ValueError("nothing is left of it for the model to read")
        if "pixel_values_videos" in features and not features["pixel_values_videos"].isfinite().all():
            raise ValueError("a video has values that are NaN or infinite")
        return features

    def check_length(self, sizes: Sequence[tuple[int, int]]) -> None:
        """Refuse an input whose pictures alone are more tokens than the model reads: none of them can be cut off.

        Args:
            sizes: The (width, height) of each picture of one input.

        Raises:
            ValueError: There are more visual tokens than `max_seq_length` has room for.
        """
        processor, limit = self.processor.image_processor, self.max_seq_length
        patches = sum(processor.get_number_of_image_patches(height, width) for width, height in sizes)
        tokens = patches // processor.merge_size**2 + 2 * len(sizes)  # each has a start and an end
        if limit is not None and self._before_pictures + tokens > limit:
            raise ValueError(
                f"{len(sizes)} picture(s) are {tokens} tokens, and the model reads {limit} (max_seq_length): "
                "give fewer, or build the model with less max_pixels"
            )

    @cached_property
    def _before_pictures(self) -> int:
        """Tokens that the template puts before the first picture."""
        from PIL import Image

        ids = self.preprocess([Image.new("RGB", (28, 28))])["input_ids"][0]
        return int((ids == self.processor.image_token_id).nonzero()[0]) - 1

    def _prepare_messages(self, conversations: list[Any]) -> list[Any]:
        """Take the marks of pictures out of all texts: without its picture, a mark is an error of the whole batch."""
        return [without_marks(conversation) for conversation in conversations]

    def _token_ids(self, text: str) -> list[int]:
        """The tokens of a text, neither cut nor padded."""
        return own_tokenizer(self.tokenizer)(text, verbose=False)["input_ids"]

    def patch_positions(self, features: dict[str, Any]) -> list[list[Tensor]]:
        """For each input, for each of its pictures: where in the sequence its visual tokens are.

        Args:
            features: What `preprocess` or `forward` returned, padded on either side.

        Returns:
            Tensors (rows, columns) of positions from 0 to N-1, laid out as the patches are in the picture, so that
            ``attention_weights[i][positions]`` is a map over it.
        """
        positions: list[list[Tensor]] = [[] for _ in features["input_ids"]]
        if "image_grid_thw" not in features:
            return positions
        grids = features["image_grid_thw"][:, 1:] // self.processor.image_processor.merge_size
        visual = (features["input_ids"] == self.processor.image_token_id).nonzero()  # in the order of the pictures
        for grid, tokens in zip(grids.tolist(), visual.split(grids.prod(dim=1).tolist()), strict=True):
            positions[int(tokens[0, 0])].append(tokens[:, 1].view(grid))
        return positions

    def on_model_ready(self, model: SentenceTransformer) -> None:  # type: ignore[override]
        """Use a model card that says how to load the model."""
        with_own_card(model)

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Save as the stock module does."""
        super().save(output_path, *args, **kwargs)
        declare_requirement(output_path)

    def _check_config(self, name: str, config: PretrainedConfig, is_adapter: bool) -> None:
        """Refuse another base model, before its weights are downloaded.

        Raises:
            ValueError: It is not a Qwen2-VL.
            ImportError: It is an adapter, and transformers is too old to load its prefixes.
        """
        if config.model_type not in _MODEL_TYPES:
            raise ValueError(
                f"{name} is a {config.model_type!r} model; Qwen2VLTransformer needs one of {_MODEL_TYPES}. Use the "
                "stock Transformer for others."
            )
        if is_adapter:
            check_adapters()

    def _reading_weights(self) -> AbstractContextManager[None]:
        """Refuse weights that are missing or left over."""
        return whole_backbone()

    def _set_pixel_budget(self) -> None:
        processor = self.processor.image_processor
        # What the processor calls edges are areas, for this family of models.
        processor.size = SizeDict(shortest_edge=self.min_pixels, longest_edge=self.max_pixels)
        token_pixels = (processor.patch_size * processor.merge_size) ** 2
        least, most = -(-self.min_pixels // token_pixels), max(1, self.max_pixels // token_pixels)
        logger.info("An image becomes about %d to %d visual tokens of %d pixels each", least, most, token_pixels)

    @torch.no_grad()
    def _add_prefixes(self) -> None:
        tokenizer: Any = self.tokenizer
        known = len(tokenizer)
        tokenizer.add_tokens(self.prefixes, special_tokens=True)  # leaves alone those it has
        if len(tokenizer) == known:
            return
        # Qwen2-VL has more embeddings than tokens: the prefixes mostly take spare ones.
        model: Any = self.model
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        embeddings = model.get_input_embeddings().weight
        embeddings[known : len(tokenizer)] = embeddings[:known].mean(dim=0, dtype=torch.float32)

    def _prefer_flash_attention(self) -> None:
        # It computes in half precision only, and which one the weights have is known only now.
        if is_flash_attn_2_available() and self.model.dtype in (torch.float16, torch.bfloat16):
            self.model.set_attn_implementation("flash_attention_2")


class _PromptBeforeText(InputFormatter):
    """Stock's translation of inputs into messages, but with pictures first and no system message."""

    def to_message(self, typed_input: dict[Any, Any], role: str = "user") -> list[dict[str, Any]]:
        if "message" in typed_input:  # a conversation beside inputs of other kinds: stock would lose what it says
            return typed_input["message"]
        return super().to_message(
            {kind: typed_input[kind] for kind in sorted(typed_input, key=lambda kind: kind == "text")}, role
        )

    def prepend_prompt_to_messages(
        self, messages: list[list[dict[str, Any]]], prompt: str
    ) -> list[list[dict[str, Any]]]:
        return [_with_prompt(self.normalize_messages(conversation), prompt) for conversation in messages]


def _with_prompt(conversation: list[dict[str, Any]], prompt: str) -> list[dict[str, Any]]:
    """Put `prompt` before the first text of the last user message, or as its text if it has none."""
    turns = [number for number, message in enumerate(conversation) if message["role"] == "user"]
    turn = turns[-1] if turns else len(conversation) - 1
    content = list(conversation[turn]["content"])  # the caller's own list stays as it is
    texts = [number for number, part in enumerate(content) if part["type"] == "text" and part["text"]]
    if texts:
        space = "" if prompt[-1].isspace() else " "
        content[texts[0]] = {"type": "text", "text": f"{prompt}{space}{content[texts[0]]['text']}"}
    else:
        content.append({"type": "text", "text": prompt.strip()})
    return [*conversation[:turn], {**conversation[turn], "content": content}, *conversation[turn + 1 :]]


def _check_arguments(min_pixels: int, max_pixels: int, prefixes: Sequence[str], template: str) -> None:
    if not 0 < min_pixels <= max_pixels:
        raise ValueError(f"need 0 < min_pixels <= max_pixels, got {min_pixels} and {max_pixels}")
    if isinstance(prefixes, str) or not all(prefixes) or len(set(prefixes)) < len(prefixes):
        raise ValueError(f"prefixes must be a sequence of distinct strings that are not empty, got {prefixes!r}")
    if template not in get_args(Template):
        raise ValueError(f"template must be one of {get_args(Template)}, got {template!r}")


def _is_empty(value: Any) -> bool:
    """Whether neither a text nor anything else is in an input, or in a part of one."""
    if isinstance(value, str):
        return is_blank(value)
    if isinstance(value, (dict, list, tuple)):
        return all(_is_empty(part) for part in (value.values() if isinstance(value, dict) else value))
    return value is None


def _is_unicode(value: Any) -> bool:
    """Whether all texts in an input, or in a part of one, are Unicode."""
    if isinstance(value, str):
        return is_unicode(value)
    if isinstance(value, (dict, list, tuple)):
        return all(map(_is_unicode, value.values() if isinstance(value, dict) else value))
    return True


def _name(number: int, item: Any) -> str:
    shown = " ".join(repr(item).split())  # an array has lines
    return f"input {number} of the batch, {shown:.100}"


def check_adapters() -> None:
    """Raise an ImportError where transformers loads an adapter without the prefixes that were trained with it."""
    require_version("transformers>=5.18", 'LoRA needs it: pip install "st-vi[lora]"')

"""Qwen2-VL as the backbone of viPolyQwen: text, images, videos or all, with the prefix of the task before the text."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, Literal

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modality import InputFormatter
from torch import Tensor
from transformers import PretrainedConfig
from transformers.image_utils import SizeDict
from transformers.utils import is_flash_attn_2_available, is_torchvision_available, is_vision_available  # type: ignore[attr-defined]
from transformers.utils.versions import require_version

from st_vi.checks import check_choice
from st_vi.inputs.content import Size, content_key, picture_sizes
from st_vi.inputs.flat import padded
from st_vi.inputs.kinds import is_missing, read_input, without_marks
from st_vi.modules.model_card import with_own_card
from st_vi.modules.saved_module import declare_requirement
from st_vi.modules.tokenizers import own_tokenizer
from st_vi.modules.whole_backbone import whole_backbone
from st_vi.stock.models import OpenTransformer
from st_vi.stock.videos import place_moments, share_pixels
from st_vi.stock.vision import DistinctPictures, speed_up
from st_vi.tasks import PREFIXES
from st_vi.text import is_blank, is_unicode

logger = logging.getLogger(__name__)

Template = Literal["plain", "chat"]

AUTO = "<auto>"
"""The prompt that stands for a prefix chosen by `TaskRouter`. It is no token."""

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
    """The stock `Transformer` for Qwen2-VL and Qwen2.5-VL, with viPolyQwen's prefixes.

    Inputs are as in stock: a text, an image (PIL, path, URL, bytes, array), ``{"text": …, "image": …}`` with one image
    or a list of images, ``{"video": …}``, a conversation, and any mixture of these in a batch. Images and videos come
    before the text, whatever the order of the dict; None, NaN and "" in a dict count as absent.

    - **Images** are opened by `st_vi.inputs.pictures.open_image`, as in training: upright, on white, 8 bits.
    - **Videos** are opened by `st_vi.inputs.videos.open_video`: a list of frames, an animated GIF, WebP or PNG, or a
      video file. Two frames become the visual tokens of one moment, and the positions of tokens count the moments.
    - **Texts.** ``{"text": …}`` is always text. A plain string is an image if it is the URL or path of one
      (`st_vi.inputs.kinds.is_picture`), and a missing image is an error. Image tokens in a text, such as
      ``<|image_pad|>``, are plain text.
    - **Pixel budget.** Images are resized to between `min_pixels` and `max_pixels`, rounded to whole visual tokens of
      28×28 pixels. Frames keep the budget of the base model's video processor.
    - **Prefixes.** Each prefix is one special token. Those new to the tokenizer start as the mean of all other
      embeddings; a saved model keeps what it has learned. A LoRA adapter saves embeddings only of tokens listed in
      ``trainable_token_indices``: list the ids of the prefixes there.
    - **Prompts.** ``prompt_name="ocr"`` or ``prompt="<ocr>"`` goes right before the user's text, ``"<ocr> text"``;
      an image without text gets the prefix as its text. (Stock makes it a system message.) No prompt gives the general
      embedding. `default_prompts` names one prompt for each prefix. In a model with a `TaskRouter`, ``"<auto>"`` lets
      it choose the prompt of each input.
    - **Template.** "plain" is the vision tokens followed by the text; "chat" is the model's own template, with the
      input as the user's message.
    - **Repeated images** and videos in a batch go through the vision tower once.
    - **FlashAttention 2** is used if it is installed and the weights are in half precision, unless ``model_kwargs``
      names another ``attn_implementation``. `preprocess` always pads, but with FlashAttention the losses of st_vi put
      texts and images in one row without padding (`st_vi.inputs.flat.flattened`), which `forward` reads. Stock flattens
      texts only, with positions that Qwen2-VL does not use.

    Writes ``token_embeddings`` (B, N, D), or (1, total, D) for inputs in one row. The features keep ``input_ids`` (B,
    N) and the grids of images and videos, ``image_grid_thw`` (images, 3) and ``video_grid_thw`` (videos, 3). From the
    first, `patch_positions` maps tokens to patches. ``prompt_length`` is not written, because the place of the prompt
    depends on the images before it: ``AttentionPooling(include_prompt=False)`` pools the prompt, too.

    Source: viPolyQwen, Sections on the backbone and on prefixes (arXiv 2409.12191 for Qwen2-VL). *Inferred*: the plain
    template and the pixel budget, which the paper does not give.

    Args:
        model_name_or_path: A model on the Hub or in a folder, such as "Qwen/Qwen2-VL-2B-Instruct".
        min_pixels: At least 1; the default is 4 visual tokens.
        max_pixels: At least `min_pixels`; the default is 512 visual tokens.
        prefixes: Distinct, non-empty special tokens.
        template: "plain" or "chat".
        **kwargs: As for the stock `Transformer`.

    Raises:
        ImportError: Pillow or torchvision is not installed.
        ValueError: An argument is out of range, the base model is not a Qwen2-VL, or "chat" is used with a model that
            has no chat template, such as one saved with "plain".

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from st_vi.modules import AttentionPooling
        >>> from st_vi import Qwen2VLTransformer
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
        self.prefixes: list[str] = []
        self.template = template
        self.input_formatter = _PromptBeforeText(
            self.config.model_type,
            message_format="structured",
            processor=self.processor,
            supported_modalities=self.modalities,
        )
        self._set_pixel_budget()
        self._add_prefixes(prefixes)
        self.choose_prompts: Callable[[list[Any]], list[str]] | None = None  # set by a `TaskRouter`
        self.distinct_pictures = DistinctPictures(self.model.visual)
        place_moments(self.model)
        speed_up(self.model.visual)
        if "attn_implementation" not in (kwargs.get("model_kwargs") or {}):
            self._prefer_flash_attention()

    def default_prompts(self) -> dict[str, str]:
        """The ``prompts`` of a model, one for each prefix: ``{"ocr": "<ocr> ", …}``."""
        return {prefix.strip("<>"): f"{prefix} " for prefix in self.prefixes}

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Preprocess as the stock module does, with errors that name the input.

        Raises:
            ValueError: A dict or conversation is empty (no image or video and only blank text), a text is not valid
                Unicode (a lone surrogate), or an image or video is missing, unusable (see `open_image` and
                `open_video`) or longer than the model reads. The message shows the input and its place in the batch;
                `encode` sorts inputs by length before it makes batches.
        """
        read = [self._read(number, item) for number, item in enumerate(inputs)]
        if prompt is not None and not is_unicode(prompt):
            raise ValueError(f"the prompt {prompt!r:.100} is no Unicode text: it has half of a surrogate pair")
        prompts = self._prompts(read, prompt)
        try:
            return self._checked(read, prompts, kwargs)
        except Exception:  # from the formatter, torchvision or the tokenizer
            for number, item in enumerate(read):  # find the input that caused it
                try:
                    self._checked([item], prompts[number : number + 1], kwargs)
                except Exception as error:
                    reason = self._too_long(item) or str(error) or type(error).__name__
                    raise ValueError(f"{_name(number, inputs[number])}: {reason}") from error
            raise

    def _too_long(self, item: Any) -> str:
        """Why the images and videos of an input do not fit, or ""."""
        try:
            self.check_length(picture_sizes(content_key(item)))
        except ValueError as error:
            return str(error)
        except Exception:  # the processor fails with any input
            pass
        return ""

    def _read(self, number: int, item: Any) -> Any:
        """An input in a form that leaves nothing for stock to guess."""
        if isinstance(item, str) and is_blank(item):
            # As in other models, a blank text is special tokens only; the plain template has none.
            return {"text": self.tokenizer.pad_token}  # type: ignore[union-attr]
        if all(map(is_missing, _parts(item))):
            raise ValueError(f"{_name(number, item)} is empty: give a text, an image or both")
        if not all(is_unicode(part) for part in _parts(item) if isinstance(part, str)):
            raise ValueError(f"{_name(number, item)} is no Unicode text: it has half of a surrogate pair")
        try:
            return read_input(item)
        except Exception as error:  # from files or the web
            raise ValueError(f"{_name(number, item)}: {error or type(error).__name__}") from error

    def _prompts(self, read: list[Any], prompt: str | None) -> list[str]:
        """The prompt of each input, "" for none."""
        if prompt is None or prompt.strip() != AUTO:
            return [prompt or ""] * len(read)
        if self.choose_prompts is None:
            raise ValueError(
                f"the prompt {AUTO!r} is chosen by a TaskRouter, which this model lacks: add one with "
                "st_vi.recipes.train_router(model, rows)"
            )
        return self.choose_prompts(read)

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Run the model on padded inputs, or on those that `st_vi.inputs.flat.flattened` put in one row.

        Raises:
            ValueError: Inputs are in one row, and the model has no FlashAttention to keep them apart.
        """
        if "cu_seq_lens_q" in features:
            if not self.reads_flat:
                raise ValueError("inputs in one row need FlashAttention, or they would attend to each other: pad them")
            features["position_ids"] = self._flat_positions(features)
        return super().forward(features, **kwargs)

    def _flat_positions(self, features: dict[str, Any]) -> Tensor:
        """Positions (4, 1, total): the place in the input, and time, row and column for Qwen2-VL's rotations."""
        table = padded(features)
        mask = table["attention_mask"]
        places = mask.cumsum(dim=1) - 1
        positions = places.expand(3, *mask.shape)
        if grids := {name: table[name] for name in ("image_grid_thw", "video_grid_thw") if name in table}:
            tokens = {name: table[name] for name in ("input_ids", "mm_token_type_ids", "attention_mask")}
            positions, _ = self.model.get_rope_index(**tokens, **grids)  # type: ignore[operator]
        return torch.cat([places[None], positions])[:, mask.bool()][:, None]

    def _checked(self, inputs: Sequence[Any], prompts: list[str], kwargs: dict[str, Any]) -> dict[str, Any]:
        # Stock makes messages of all inputs and hands them to `_PromptBeforeText`, with this list as it is.
        features = super().preprocess(inputs, prompt=prompts, **kwargs)  # type: ignore[arg-type]
        if not features["attention_mask"].any(dim=1).all():
            raise ValueError("nothing is left of it for the model to read")
        moments = features.get("video_grid_thw", torch.zeros(1, 3))[:, 0].max()
        if self._most_frames is not None and 2 * moments > self._most_frames:
            raise ValueError(f"a video of more than {self._most_frames} frames needs a newer transformers")
        return features

    def check_length(self, sizes: Sequence[Size]) -> None:
        """Reject an input whose images and videos alone exceed the model's length: visual tokens cannot be truncated.

        Args:
            sizes: (width, height) of each image of one input, (width, height, frames) of each video.

        Raises:
            ValueError: The visual tokens do not fit into `max_seq_length`.
        """
        tokens, limit = self._image_tokens(sizes), self.max_seq_length
        if limit is not None and self._before_pictures + tokens > limit:
            frames = [size[2] for size in sizes if len(size) == 3]
            images = f"{len(sizes) - len(frames)} image(s)" if len(frames) < len(sizes) else ""
            videos = f"{len(frames)} video(s) of {sum(frames)} frames" if frames else ""
            what = " and ".join(filter(None, (images, videos)))
            fewer = "fewer frames" if frames else "fewer, or build the model with less max_pixels"
            raise ValueError(f"{what} are {tokens} tokens, and the model reads {limit} (max_seq_length): give {fewer}")

    def count_tokens(self, text: str, sizes: Sequence[Size]) -> int:
        """Number of tokens of an input, without those that a chat template adds.

        Args:
            text: Its text, "" for none.
            sizes: (width, height) of each of its images, (width, height, frames) of each video.
        """
        tokens = self._image_tokens(sizes) + len(self._token_ids(text))
        return max(1, tokens if self.max_seq_length is None else min(tokens, self.max_seq_length))

    def _image_tokens(self, sizes: Sequence[Size]) -> int:
        processor, videos = self.processor.image_processor, self.processor.video_processor
        patches = sum(
            videos.get_num_of_video_patches(frames[0] + frames[0] % 2, height, width, {})
            if frames
            else processor.get_number_of_image_patches(height, width, {})
            for width, height, *frames in sizes
        )
        return patches // processor.merge_size**2 + 2 * len(sizes)  # each has a start and an end

    @cached_property
    def _before_pictures(self) -> int:
        """Number of tokens that the template puts before the first image."""
        from PIL import Image

        # Not by `preprocess`, which asks for this number where it explains an error.
        ids = self._checked([Image.new("RGB", (28, 28))], [""], {})["input_ids"][0]
        return int((ids == self.processor.image_token_id).nonzero()[0]) - 1

    def _token_ids(self, text: str) -> list[int]:
        """Token ids of a text, without truncation or padding."""
        return own_tokenizer(self.tokenizer)(text, verbose=False)["input_ids"]

    def patch_positions(self, features: dict[str, Any]) -> list[list[Tensor]]:
        """The positions of the visual tokens, for each image of each input.

        Args:
            features: Result of `preprocess` or `forward`, padded on either side.

        Returns:
            Tensors (rows, columns) of positions from 0 to N-1, laid out like the patches of the image, so that
            ``attention_weights[i][positions]`` is a map over it.
        """
        positions: list[list[Tensor]] = [[] for _ in features["input_ids"]]
        if "image_grid_thw" not in features:
            return positions
        grids = features["image_grid_thw"][:, 1:] // self.processor.image_processor.merge_size
        visual = (features["input_ids"] == self.processor.image_token_id).nonzero()  # in the order of the images
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
        """Reject other base models before their weights are downloaded.

        Raises:
            ValueError: The model is not a Qwen2-VL.
            ImportError: The model is an adapter, and transformers is too old to load its prefixes.
        """
        if config.model_type not in _MODEL_TYPES:
            raise ValueError(
                f"{name} is a {config.model_type!r} model; Qwen2VLTransformer needs one of {_MODEL_TYPES}. Use the "
                "stock Transformer for others."
            )
        if is_adapter:
            check_adapters()

    def _reading_weights(self) -> AbstractContextManager[None]:
        """Reject missing or left-over weights."""
        return whole_backbone()

    def _set_pixel_budget(self) -> None:
        processor = self.processor.image_processor
        # For these models, the processor's "edges" are areas.
        processor.size = SizeDict(shortest_edge=self.min_pixels, longest_edge=self.max_pixels)
        token_pixels = (processor.patch_size * processor.merge_size) ** 2
        self._most_frames = share_pixels(self.processor.video_processor)
        least, most = -(-self.min_pixels // token_pixels), max(1, self.max_pixels // token_pixels)
        logger.info("An image becomes about %d to %d visual tokens of %d pixels each", least, most, token_pixels)

    def add_prefixes(self, prefixes: Sequence[str]) -> None:
        """Add prefixes, also to a trained model; those that it has already stay as they are.

        A prefix that is new starts as the mean of all other embeddings. The prompts of the `SentenceTransformer` are
        not changed: ``model.prompts.update(model[0].default_prompts())``.

        Args:
            prefixes: Distinct, non-empty special tokens, such as ``["<video>"]``.

        Raises:
            ValueError: They are not, or the model is a LoRA adapter, which saves no new embeddings.
        """
        _check_prefixes(prefixes)
        if getattr(self.model, "peft_config", None) and not set(prefixes) <= set(self.prefixes):
            raise ValueError("a LoRA adapter does not save new embeddings: add the prefixes when the model is built")
        self._add_prefixes(prefixes)

    @torch.no_grad()
    def _add_prefixes(self, prefixes: Sequence[str]) -> None:
        self.prefixes += [prefix for prefix in prefixes if prefix not in self.prefixes]
        tokenizer: Any = self.tokenizer
        known = len(tokenizer)
        tokenizer.add_tokens(list(prefixes), special_tokens=True)  # skips known ones
        if len(tokenizer) == known:
            return
        # Qwen2-VL has more embeddings than tokens, so the prefixes usually take spare ones.
        model: Any = self.model
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        embeddings = model.get_input_embeddings().weight
        embeddings[known : len(tokenizer)] = embeddings[:known].mean(dim=0, dtype=torch.float32)

    def _prefer_flash_attention(self) -> None:
        # It needs half precision, and the dtype of the weights is known only now.
        if is_flash_attn_2_available() and self.model.dtype in (torch.float16, torch.bfloat16):
            self.model.set_attn_implementation("flash_attention_2")


class _PromptBeforeText(InputFormatter):
    """Stock's formatter, but with images first, prompts before texts in place of a system message, and no marks."""

    def to_message(self, typed_input: dict[Any, Any], role: str = "user") -> list[dict[str, Any]]:
        if "message" in typed_input:  # in a mixed batch, stock would drop the conversation
            return typed_input["message"]
        return super().to_message(
            {kind: typed_input[kind] for kind in sorted(typed_input, key=lambda kind: kind == "text")}, role
        )

    def prepend_prompt_to_messages(
        self, messages: list[list[dict[str, Any]]], prompt: str | Sequence[str]
    ) -> list[list[dict[str, Any]]]:
        """Conversations as the template gets them, each with its prompt, and image tokens in texts broken.

        Without an image, such a token fails the whole batch.
        """
        prompts = [prompt] * len(messages) if isinstance(prompt, str) else prompt
        return [
            # Lists of parts, as transformers 5.5 reads nothing else.
            without_marks(_with_prompt(self.normalize_messages(conversation), own))
            for conversation, own in zip(messages, prompts, strict=True)
        ]


def _with_prompt(conversation: list[dict[str, Any]], prompt: str) -> list[dict[str, Any]]:
    """Put `prompt` before the first text of the last user message, or make it the text if there is none."""
    if not prompt:
        return conversation
    turns = [number for number, message in enumerate(conversation) if message["role"] == "user"]
    turn = turns[-1] if turns else len(conversation) - 1
    content = list(conversation[turn]["content"])  # do not change the caller's list
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
    _check_prefixes(prefixes)
    check_choice("template", template, Template)


def _check_prefixes(prefixes: Sequence[str]) -> None:
    if isinstance(prefixes, str) or not all(prefixes) or len(set(prefixes)) < len(prefixes):
        raise ValueError(f"prefixes must be a sequence of distinct strings that are not empty, got {prefixes!r}")


def _parts(value: Any) -> Iterator[Any]:
    """The texts and whatever else an input is made of."""
    if isinstance(value, (dict, list, tuple)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _parts(part)
    else:
        yield value


def _name(number: int, item: Any) -> str:
    shown = " ".join(repr(item).split())  # an array has line breaks
    return f"input {number} of the batch, {shown:.100}"


def check_adapters() -> None:
    """Raise an ImportError if this transformers would drop the trained prefixes of an adapter."""
    require_version("transformers>=5.18", 'LoRA needs it: pip install "st-vi[lora]"')

"""Load, import and export models."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import snapshot_download
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Module, Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from sentence_transformers.util import fullname, load_file_path
from torch import Tensor
from transformers.utils import logging

from st_vi import modules
from st_vi.checks import check_model
from st_vi.files.lines import on_disk
from st_vi.graphs.kept import GraphDtype, on_graph
from st_vi.model_files import base_of_adapter, check_files, check_has_model, check_modules, plain_weights
from st_vi.modules import MLPHead
from st_vi.modules.model_card import TAGS, ModelCard, with_own_card
from st_vi.modules.positions import usable_positions
from st_vi.modules.whole_backbone import whole_backbone
from st_vi.stock.adapters import refuse_disabled
from st_vi.stock.models import load_with_classes, with_modules
from st_vi.stock.weights import watched_reading
from st_vi.vocabulary import trim_vocabulary

logger = logging.get_logger(__name__)

_PRETRAINED = Path(__file__).parent / "pretrained"
_HUB_ARGUMENTS = ("token", "revision", "cache_folder", "local_files_only")
# Settings that a model's own sentence_bert_config.json must not choose: they unpickle code, run native code or write
# files. Stock removes only `trust_remote_code` from it.
_NOT_THE_MODELS_CHOICE = {
    "weights_only": True,
    "use_kernels": False,
    "kernel_config": None,
    "allow_all_kernels": False,
    "offload_folder": None,
    "adapter_kwargs": None,
}
_LICENCE_NOTICE = (
    "ViCLSR's weights are under CC BY-NC-SA 4.0: non-commercial use, with attribution, under the same licence. "
    "Please cite arXiv 2603.21084."
)


def import_viclsr(
    path_or_repo: str | Path,
    activation: Literal["identity", "tanh"] = "identity",
    *,
    max_seq_length: int = 256,
    trim_to: Iterable[str] | None = None,
    token: bool | str | None = None,
    revision: str | None = None,
    cache_folder: str | None = None,
    local_files_only: bool = False,
) -> SentenceTransformer:
    """Load the released ViCLSR (arXiv 2603.21084) as a `SentenceTransformer` of stock modules.

    It computes what the code in the model card computes: ``last_hidden_state[:, 0]`` (B, H), a linear layer (H to H)
    and L2 normalisation; H is 1024 in the released model. The published class, `XLMRobertaForCL`, is not needed.

    The weights are memory-mapped to the checkpoint, so they are in memory only once. Training does not change the file.

    Args:
        path_or_repo: A folder or a repository, "huynhtin/ViCLSR", with `config.json`, the tokenizer, and
            `model.safetensors` or `pytorch_model.bin` with the names ``roberta.*`` and ``mlp.dense.*``.
        activation: "identity", as in the model card, or "tanh", as SimCSE trains (arXiv 2104.08821).
        max_seq_length: Maximum number of tokens; limited by the positions of the model.
        trim_to: Vietnamese texts; the vocabulary is trimmed to their pieces (`trim_vocabulary`). Without other
            languages, about 320 of the 560 million weights remain.
        token: As for `SentenceTransformer`, like the arguments below.
        revision: Branch, tag or commit.
        cache_folder: Folder for downloads.
        local_files_only: Use downloaded files only.

    Raises:
        FileNotFoundError: There is no weights file.
        ValueError: The model is not an XLM-RoBERTa; the file is damaged or holds more than plain weights; the head is
            missing or has the wrong shape; weights of the backbone are missing; or `trim_to` is not Vietnamese.
        RuntimeError: A weight of the backbone does not have the shape given in `config.json` (raised by transformers).

    Example:
        >>> from st_vi import import_viclsr
        >>> model = import_viclsr("huynhtin/ViCLSR")  # doctest: +SKIP
        >>> import_viclsr("/no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: /no/such/folder has neither model.safetensors nor pytorch_model.bin
    """
    name = str(path_or_repo)
    file = _fetch(name, cache_folder, token=token, revision=revision, local_files_only=local_files_only)
    transformer, head = _read_modules(file, activation)
    transformer.max_seq_length = min(max_seq_length, usable_positions(transformer.config))  # type: ignore[assignment]
    logger.warning_once(_LICENCE_NOTICE)
    card = ModelCard(
        language="vi", license="cc-by-nc-sa-4.0", tags=[*TAGS, "viclsr"], local_files_only=local_files_only
    )
    if not Path(name).is_dir():
        card.set_base_model(name, revision=revision)
    pipeline = [transformer, Pooling(transformer.get_embedding_dimension(), "cls"), *head.to_stock(), Normalize()]
    model = SentenceTransformer(modules=pipeline, model_card_data=card)
    if trim_to is not None:
        logger.info(str(trim_vocabulary(model, trim_to)))
    return model


def export_stock(model: SentenceTransformer, path: str | Path) -> None:
    """Save a model with stock modules only, so that ``SentenceTransformer(path)`` loads it without st_vi.

    Each module with a method ``to_stock() -> list[Module]``, such as `MLPHead`, is replaced by these modules. The
    others are saved unchanged. A model from `build_viclsr` or `import_viclsr` is stock already.

    Args:
        model: The model to save; it is not changed.
        path: Output folder, created if missing.

    Raises:
        ValueError: A module is not part of sentence-transformers and has no `to_stock`; or the model has adapters that
            are disabled: loaded, they would be enabled.

    Example:
        >>> import tempfile
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from st_vi import MLPHead, export_stock
        >>> model = SentenceTransformer(modules=[BoW(["xin", "chào"]), MLPHead(2, 3)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export_stock(model, folder)
        ...     [type(module).__name__ for module in SentenceTransformer(folder)]
        ['BoW', 'Dense']
    """
    check_model(model)
    if getattr(model.transformers_model, "peft_config", None):
        refuse_disabled(model, "model.enable_adapters() first, or model.delete_adapter")
    modules: dict[str, Module] = {}
    module: Any
    for name, module in model.named_children():
        parts = module.to_stock() if hasattr(module, "to_stock") else [module]
        # Untouched modules keep their names, by which `module_kwargs` finds them.
        modules |= {f"{name}_{index}" if index else name: part for index, part in enumerate(parts)}
    stock = with_modules(model, modules)
    for module in stock.modules():
        if isinstance(module, Module) and not fullname(module).startswith("sentence_transformers."):
            raise ValueError(
                f"{fullname(module)} has no equal among the modules of sentence-transformers. Save the model with "
                "model.save_pretrained(path) and load it with st_vi.load(path)."
            )
    stock.model_card_data = copy.copy(model.model_card_data)
    stock.model_card_data.register_model(stock)
    with_own_card(stock)
    stock.save_pretrained(os.fspath(path))


def pretrained(name: str = "vi-mini") -> str:
    """The folder of a model included in the package.

    ``vi-mini``: a Vietnamese encoder of 12.9 million weights, vectors of 384, distilled from multilingual-e5-small;
    its card, with data, licences and figures, is the README.md in the folder.

    ``poly-mini``: a viPolyQwen of 8.5 million weights for texts and images, distilled from vi-mini. It has modules of
    `st_vi`, so it is loaded with `load`.

    Args:
        name: Name of the model.

    Returns:
        A path for `load`, or, of ``vi-mini``, which has stock modules only, for ``SentenceTransformer(path)``.

    Raises:
        ValueError: There is no such model.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from st_vi import pretrained
        >>> model = SentenceTransformer(pretrained("vi-mini"), device="cpu")
        >>> model.encode("Xin chào").shape
        (384,)
    """
    if name not in _pretrained_names():
        raise ValueError(f"no model {name!r} comes with the package; there are {', '.join(_pretrained_names())}")
    return str(_PRETRAINED / name)


def included_or_same(path_or_repo: str | Path) -> str:
    """The folder of an included model if this is the name of one, and no file or folder; otherwise the same.

    Raises:
        FileNotFoundError: A path that is not there.
        ValueError: The name is empty, or no name.
    """
    if not isinstance(path_or_repo, (str, Path)):
        raise ValueError(f"expected a folder or a repository of a model, got {type(path_or_repo).__name__}")
    name = str(path_or_repo)
    if not name.strip():
        raise ValueError("the name of a model is empty")
    if Path(name).exists():
        return name
    if (found := on_disk(name)).exists():
        return str(found)
    if isinstance(path_or_repo, Path) or re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", name, re.ASCII) is None:
        raise FileNotFoundError(f"no such folder: {name}")
    return pretrained(name) if name in _pretrained_names() else name


def _pretrained_names() -> list[str]:
    return sorted(file.parent.name for file in _PRETRAINED.glob("*/modules.json"))


def load(path_or_repo: str | Path, **kwargs: Any) -> SentenceTransformer:
    """Load a model made of modules of st_vi and sentence-transformers, without `trust_remote_code`.

    The flag is all or nothing: it would also run code that comes with the model. Here no class is imported except those
    of `st_vi.modules` and those that stock loads without the flag. Pickles are read as weights only, whatever the
    model's files say about that or about folders to write to.

    With ``backend="onnx"``, the whole text model runs on the CPU as one ONNX graph (``pip install "st-vi[onnx]"``). The
    graph is exported at the first call and kept in ``~/.cache/st_vi/onnx`` (or below ``ST_VI_CACHE``). It has 8-bit
    weights where the CPU has instructions for them (VNNI) and the cosine to the model's own vectors is at least 0.99 on
    sample texts, otherwise float32; ``model_kwargs={"dtype": "float32"}``, or ``"int8"``, decides it.

    Args:
        path_or_repo: A folder, a repository "owner/name", or the name of an included model, "vi-mini" (`pretrained`).
        **kwargs: As for `SentenceTransformer`, except `trust_remote_code` and, with ``backend="onnx"``, `device` and
            `model_kwargs`.

    Raises:
        FileNotFoundError: There is no such folder, and the Hub has no such repository or is not reached; or that is so
            of the model to which an adapter belongs.
        ImportError: A package of the extra `onnx` is missing.
        ValueError: The model names another class or a path outside its folder; a file is damaged, truncated or would
            run code; weights of the backbone are missing or left over; a folder has an adapter and a whole model, of
            which one was saved over the other; `trust_remote_code` is set; or the model or an
            option is not for ``backend="onnx"``, such as a model for images.

    Example:
        >>> import tempfile
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from st_vi import MLPHead, load
        >>> model = SentenceTransformer(modules=[BoW(["xin", "chào"]), MLPHead(2, 3)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save_pretrained(folder)
        ...     [type(module).__name__ for module in load(folder)]
        ['BoW', 'MLPHead']
    """
    name, own = included_or_same(path_or_repo), _own_classes()
    hub = {argument: kwargs[argument] for argument in _HUB_ARGUMENTS if argument in kwargs}
    if any(isinstance(part, dict) and part.get("trust_remote_code") for part in (kwargs, *kwargs.values())):
        raise ValueError("st_vi.load runs no remote code: leave trust_remote_code out")
    if kwargs.get("backend") == "onnx":
        return _load_graph(name, kwargs)
    if kwargs.get("backend", "torch") == "torch":
        kwargs["model_kwargs"] = _NOT_THE_MODELS_CHOICE | (kwargs.get("model_kwargs") or {}) | {"weights_only": True}
    try:
        check_modules(name, own, **hub)
        with whole_backbone():
            model = load_with_classes(name, own, **kwargs)
    except Exception as error:
        # Stock's errors name neither the model nor the file.
        if isinstance(error, OSError) and not Path(name).exists():
            why = str(error).partition("\n")[0]
            raise FileNotFoundError(
                f"no model {name!r}: there is no such folder, and none on the Hub ({why})"
            ) from error
        base = base_of_adapter(name, **hub) if isinstance(error, OSError) else None
        if base is not None and not (base and Path(base).exists()):
            why = str(error).partition("\n")[0]
            raise FileNotFoundError(
                f"{name} is an adapter of {base!r}, and no such model is found ({why}): put it back, or write its "
                "place into adapter_config.json"
            ) from error
        if file := load_file_path(name, "modules.json", **hub) or load_file_path(name, "config.json", **hub):
            check_files(Path(file).parent)
        check_has_model(name)
        raise
    _check_vocabulary(model, name)
    with_own_card(model)
    return model


def _check_vocabulary(model: SentenceTransformer, name: str) -> None:
    """Check that tokenizers have tokens: without its files, transformers makes one that knows only special ones."""
    for module in model:
        tokenizer = getattr(module, "tokenizer", None)
        special = getattr(tokenizer, "all_special_tokens", None)
        # Without the prefixes of viPolyQwen, which were added.
        if special is not None and tokenizer.vocab_size < len(special) + 2:  # type: ignore[union-attr]
            raise ValueError(
                f"{name} has no vocabulary: the files of its tokenizer, such as tokenizer.json, are missing"
            )


def _load_graph(name: str, kwargs: dict[str, Any]) -> SentenceTransformer:
    """Load with torch, then exchange the modules for a graph."""
    options: dict[str, Any] = dict(kwargs.get("model_kwargs") or {})
    dtype: GraphDtype = options.pop("dtype", "auto")
    if options or kwargs.get("device") not in (None, "cpu"):
        what = f"model_kwargs {sorted(options)}" if options else f"device={kwargs['device']!r}"
        raise ValueError(f'backend="onnx" runs on the CPU and takes only model_kwargs={{"dtype": …}}, not {what}')
    model = load(name, **kwargs | {"backend": "torch", "device": "cpu", "model_kwargs": {"dtype": "float32"}})
    return on_graph(model, dtype)


def _own_classes() -> dict[str, type[Module]]:
    """The classes of `st_vi.modules` by the names in `modules.json`."""
    named = (getattr(modules, name) for name in modules.__all__)
    return {fullname(cls): cls for cls in named if isinstance(cls, type) and issubclass(cls, Module)}


def _fetch(name: str, cache_folder: str | None, **hub: Any) -> Path:
    """The weights file, preferably safetensors, in a folder with configuration and tokenizer."""
    for weights in ("model.safetensors", "pytorch_model.bin"):
        if load_file_path(name, weights, cache_folder=cache_folder, **hub):
            break
    else:
        raise FileNotFoundError(f"{name} has neither model.safetensors nor pytorch_model.bin")
    if Path(name).is_dir():
        return Path(name, weights)
    # All of one revision, and a local folder from here on: transformers, given a repository without safetensors,
    # asks the Hub to convert it.
    patterns = ["*.json", "*.model", weights]
    return Path(snapshot_download(name, cache_dir=cache_folder, allow_patterns=patterns, **hub), weights)


def _read_modules(file: Path, activation: Literal["identity", "tanh"]) -> tuple[Transformer, MLPHead]:
    """The backbone as stock reads it, and the head, which stock drops."""
    folder = str(file.parent)
    model_type = Module.load_config(folder).get("model_type")
    if model_type != "xlm-roberta":
        raise ValueError(
            f"ViCLSR is of model type 'xlm-roberta', config.json in {folder} of {model_type!r}: "
            "load other models with SentenceTransformer"
        )
    weights = plain_weights(file)
    if not {"mlp.dense.weight", "mlp.dense.bias"} <= set(weights):
        raise ValueError(
            f"{file} has no head: mlp.dense.weight and mlp.dense.bias are missing. AutoModel drops it silently when "
            "re-saving the model; take the files as they were published."
        )
    safe = file.suffix == ".safetensors"
    # Missing weights are checked below. The unused pooler stays, because stock would create one on reload.
    with watched_reading(lambda *_: None):
        transformer = Transformer.load(folder, model_kwargs=_NOT_THE_MODELS_CHOICE | {"use_safetensors": safe})
    backbone = [key for key in transformer.model.state_dict() if not key.startswith("pooler.")]
    needed = [f"roberta.{key}" for key in backbone]
    if missing := [key for key in needed if key not in weights]:
        raise ValueError(
            f"{file} lacks {len(missing)} weights of the backbone that config.json describes: "
            f"{', '.join(missing[:3])} …; they would be random. Check that both come from the same model."
        )
    head = _head(weights, transformer.config.hidden_size, activation)
    return transformer, head.to(transformer.model.dtype)


def _head(weights: dict[str, Tensor], size: int, activation: Literal["identity", "tanh"]) -> MLPHead:
    head = MLPHead(size, size, activation=activation)
    linear = head.layers[0]
    for key, parameter in linear.named_parameters():
        found = weights[f"mlp.dense.{key}"]
        if found.shape != parameter.shape:
            raise ValueError(
                f"mlp.dense.{key} has shape {tuple(found.shape)}, but the backbone's hidden size {size} calls for "
                f"{tuple(parameter.shape)}: the head belongs to another model"
            )
    linear.load_state_dict({key: weights[f"mlp.dense.{key}"] for key in ("weight", "bias")})
    return head

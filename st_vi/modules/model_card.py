"""Model cards (`README.md`) whose code runs, and whose figures are those of the weights beside them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from copy import copy
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict
from sentence_transformers import SentenceTransformer, SentenceTransformerModelCardData
from sentence_transformers.base.modules import Module
from sentence_transformers.util import fullname

from st_vi.stock.cards import CardData

SENTENCES = ("Trời đang mưa rất to ở Huế.", "Ngoài trời mưa lớn.", "Con mèo ngủ trên ghế.")
"""Inputs of the code, unless rows were seen in training."""

TAGS = ("sentence-transformers", "sentence-similarity", "feature-extraction", "dense", "st-vi")
"""By which models like these are found on the Hub."""

_COLUMN = re.compile(r"(anchor|positive|negative)(_\d+)?")
_ROWS = 1000
_BLOCK = re.compile(r"(?<=```python\n).*?(?=\n```)", re.DOTALL)
_IMPORT = re.compile(r"^(?:import st_vi|from sentence_transformers import SentenceTransformer)$", re.MULTILINE)
_COMMENT = re.compile(r"^# (?:Download from the 🤗 Hub|From its folder|Or by stock: .*)$", re.MULTILINE)
_LOADED = re.compile(r"^model = (?:st_vi\.load|SentenceTransformer)\((?P<place>\".*?\")(?:, .*)?\)$", re.MULTILINE)
_MODULES = re.compile(r"(?<=### Full Model Architecture\n\n```\n).*?(?=\n```)", re.DOTALL)


class ModelCard(CardData):
    """Stock card data for models that st_vi builds, loads or trains, or that have modules of st_vi.

    Differences from stock:

    - The usage code loads the model from its folder or from the Hub, with `st_vi.load` if stock would reject its
      modules. Images are found there too.
    - Its inputs are Vietnamese: anchors and positives instead of task names, and an image if the rows have any.
    - When the trainer restores its best checkpoint, the card shows the metrics of that checkpoint.
    - A model that is loaded and saved elsewhere, or exported, gets a card that describes what is saved.

    Args:
        language: As for `SentenceTransformerModelCardData`, like all others.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from st_vi import MLPHead
        >>> model = SentenceTransformer(modules=[BoW(["mưa", "mèo"]), MLPHead(2, 2)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save_pretrained(folder)
        ...     "model = st_vi.load(" in Path(folder, "README.md").read_text(encoding="utf-8")
        True
    """

    def run_usage_snippet(self) -> None:
        """Embed the inputs of the code."""
        if self.usage_examples is None:
            self.usage_examples = list(SENTENCES)
        super().run_usage_snippet()

    def generate_usage_snippet(self) -> str:
        """The code, and what to install for it."""
        code = self._running(super().generate_usage_snippet(), Path(self.save_dir or "."))
        prompts = [name for name, prompt in self._model().prompts.items() if prompt]
        if prompts and not self.ir_model:
            names = ", ".join(prompts)
            code = code.replace("# Run inference", f'# Run inference; prompt_name="{prompts[0]}" steers (of {names})')
        return f"It has modules of the package `st-vi`: install that, too.\n\n{code}" if self._has_own() else code

    def set_widget_examples(self, dataset: Dataset | DatasetDict) -> None:
        """Choose inputs for the code, and for the Hub's page, of the texts that the model is trained on."""
        if not isinstance(dataset, Dataset | DatasetDict):
            return
        by_name = dataset if isinstance(dataset, DatasetDict) else {"dataset": dataset}
        # The trainer also puts streams there, which would lose the rows that are read.
        sets = {name: part for name, part in by_name.items() if isinstance(part, Dataset)}
        texts = list(dict.fromkeys(text for part in sets.values() for text in _texts(part)))[:4]
        if len(texts) > 2:
            self.usage_examples = texts[:3]
            self.widget = [{"source_sentence": texts[0], "sentences": texts[1:]}]  # type: ignore[dict-item]
        self.set_picture_examples(sets)

    def set_picture_examples(self, dataset: Mapping[str, Dataset]) -> None:
        """Put the first image found, with its text, after two texts."""
        if self.usage_examples is not None and any("image" in str(kind) for kind in self._model().modalities):
            picture = next(_pictures(dataset), None)
            self.usage_examples = [*self.usage_examples[:2], picture] if picture else self.usage_examples

    def set_evaluation_metrics(self, evaluator: Any, metrics: dict[str, Any], epoch: int = 0, step: int = 0) -> None:
        """Keep the figures, also for the case that the trainer comes back to this step."""
        super().set_evaluation_metrics(evaluator, metrics, epoch, step)
        vars(self).setdefault("_of_step", {}).setdefault(step, {})[evaluator] = copy(metrics)

    def set_best_model_step(self, step: int) -> None:
        """The weights are those of this step again, and so are the figures."""
        super().set_best_model_step(step)
        (self.eval_results_dict or {}).update(vars(self).get("_of_step", {}).get(step, {}))

    def moved(self, text: str, folder: Path) -> str:
        """The card that came with the model, with code that runs in its new folder, and its modules as they are."""
        found = _LOADED.search(text)
        assets = Path(json.loads(found["place"]), "assets") if found else Path("assets")
        if found and assets.is_dir() and f"{assets.as_posix()}/" in text and assets.parent != folder:
            shutil.copytree(assets, folder / "assets", dirs_exist_ok=True)
            text = text.replace(f"{assets.as_posix()}/", self.asset_place("assets/"))
        text = _MODULES.sub(lambda _: str(self._model()), text)
        return _BLOCK.sub(lambda block: self._running(block[0], folder), text)

    def asset_place(self, path: str) -> str:
        """In the folder in which the model is saved."""
        return Path(self.save_dir or ".", path).as_posix() + "/" * path.endswith("/")

    def _running(self, code: str, folder: Path) -> str:
        """The code, with the import and the call that load this model from where it is."""
        place = json.dumps(self.model_id or folder.as_posix(), ensure_ascii=False)
        own = self._has_own()
        stock = f"SentenceTransformer({place}"
        comment = "Download from the 🤗 Hub" if self.model_id else "From its folder"
        comment = f"Or by stock: {stock}, trust_remote_code=True)" if own else comment
        load = f"model = st_vi.load({place})" if own else f"model = {stock})"
        code = _IMPORT.sub("import st_vi" if own else "from sentence_transformers import SentenceTransformer", code)
        return _LOADED.sub(lambda _: load, _COMMENT.sub(lambda _: f"# {comment}", code))

    def _has_own(self) -> bool:
        """Whether stock would refuse a module, also one inside of another, such as a `Router`."""
        inside = (module for module in self._model().modules() if isinstance(module, Module))
        return any(not fullname(module).startswith("sentence_transformers.") for module in (*self._model(), *inside))

    def _model(self) -> SentenceTransformer:
        if self.model is None:
            raise ValueError("this card has no model yet: give it to a SentenceTransformer as model_card_data")
        return self.model


def with_own_card(model: SentenceTransformer) -> None:
    """Give a model a `ModelCard` in place of stock's card data, and copy what is known so far.

    Args:
        model: Any model; card data of another class than stock's stay.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from st_vi.modules.model_card import with_own_card
        >>> model = SentenceTransformer(modules=[BoW(["mưa"])])
        >>> with_own_card(model)
        >>> type(model.model_card_data).__name__
        'ModelCard'
    """
    stock = model.model_card_data
    if type(stock) is SentenceTransformerModelCardData:
        card = ModelCard()
        vars(card).update({name: value for name, value in vars(stock).items() if name != "model"})
        card.language = stock.language or ["vi"]
        card.add_tags("st-vi")
        card.register_model(model)
        model.model_card_data = card


def _texts(rows: Dataset) -> list[str]:
    """The shortest rows of texts, of what is trained on: anchor, positive and negatives of each."""
    names = [name for name in rows.column_names if _COLUMN.fullmatch(name)]
    some = rows.select_columns(names).select(range(min(len(rows), _ROWS))) if names else []
    good = [list(row.values()) for row in some if all(isinstance(v, str) and v.strip() for v in row.values())]
    return [text for row in sorted(good, key=lambda row: sum(map(len, row)))[:2] for text in row]


def _pictures(sets: Mapping[str, Dataset]) -> Iterator[Any]:
    """Stock inputs with an image."""
    for rows in sets.values():
        columns = [name for name in rows.column_names if name.endswith("image")]
        for row in rows.select(range(min(len(rows), _ROWS))) if columns else ():
            for column in columns:
                if hasattr(row[column], "convert"):
                    text = row.get(column.removesuffix("_image"))
                    yield {"image": row[column], "text": text} if text else {"image": row[column]}

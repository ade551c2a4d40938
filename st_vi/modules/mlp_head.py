"""Projection heads of both systems."""

from __future__ import annotations

from typing import Any, Literal

from sentence_transformers.base.modules import Dense, Module
from sentence_transformers.sentence_transformer.modules import LayerNorm
from torch import Tensor, nn

from st_vi.checks import check_choice, check_whole
from st_vi.modules.saved_module import SavedModule

Activation = Literal["identity", "tanh", "gelu"]
Init = Literal["random", "identity"]
_ACTIVATIONS: dict[str, type[nn.Module]] = {"identity": nn.Identity, "tanh": nn.Tanh, "gelu": nn.GELU}


class MLPHead(SavedModule):
    """A head of one or two layers on the pooled embedding c, with activation φ.

    - One layer, φ(W₁ c + b₁): ViCLSR (arXiv 2603.21084). The released head has no activation; SimCSE's, on which it is
      based, has tanh (arXiv 2104.08821, Section 6).
    - Two layers, W₂ φ(W₁ c + b₁) + b₂: viPolyQwen, with GELU.
    - `layer_norm` adds a LayerNorm after each linear layer: LN(W₂ φ(LN(W₁ c))).

    Reads and writes ``sentence_embedding``: (B, in_features) becomes (B, out_features).

    Args:
        in_features: Size of the pooled embedding.
        out_features: Size of the output, and of the hidden layer if there are two layers.
        num_layers: 1 or 2.
        activation: "identity", "tanh" or "gelu".
        layer_norm: Whether to normalise after each linear layer.
        init: "random" as in `nn.Linear`, or "identity", W₁ = I and b₁ = 0, for one square layer without norm. The head
            starts as φ(c), which is c for the activation "identity".

    Raises:
        ValueError: A size is no positive integer, `num_layers`, `activation` or `init` is unknown, or this head cannot
            start as the identity.

    Example:
        >>> import torch
        >>> from st_vi import MLPHead
        >>> head = MLPHead(768, 1024, num_layers=2, activation="gelu", layer_norm=True)
        >>> head({"sentence_embedding": torch.randn(3, 768)})["sentence_embedding"].shape
        torch.Size([3, 1024])
    """

    config_keys: list[str] = ["in_features", "out_features", "num_layers", "activation", "layer_norm"]  # noqa: RUF012

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_layers: Literal[1, 2] = 1,
        activation: Activation = "tanh",
        layer_norm: bool = False,
        init: Init = "random",
    ) -> None:
        super().__init__()
        check_whole("in_features", in_features)
        check_whole("out_features", out_features)
        if num_layers not in (1, 2):
            raise ValueError(f"num_layers must be 1 or 2, got {num_layers!r}")
        check_choice("activation", activation, Activation)
        check_choice("init", init, Init)
        if init == "identity" and (in_features != out_features or num_layers == 2 or layer_norm):
            raise ValueError(
                "only a head with one square layer and no norm can start as the identity; got "
                f"{num_layers} layer(s) from {in_features} to {out_features}, layer_norm={layer_norm}"
            )
        self.in_features = in_features
        self.out_features = out_features
        self.num_layers = num_layers
        self.activation = activation
        self.layer_norm = layer_norm

        layers: list[nn.Module] = []
        for size in (in_features, out_features)[:num_layers]:
            layers.append(nn.Linear(size, out_features))
            if layer_norm:
                layers.append(nn.LayerNorm(out_features))
        # After the first layer and its norm.
        layers.insert(2 if layer_norm else 1, _ACTIVATIONS[activation]())
        self.layers = nn.Sequential(*layers)
        if init == "identity":
            nn.init.eye_(layers[0].weight)  # type: ignore[arg-type]
            nn.init.zeros_(layers[0].bias)  # type: ignore[arg-type]

    def forward(self, features: dict[str, Tensor], **kwargs: Any) -> dict[str, Tensor]:
        """Replace ``sentence_embedding`` (B, in_features) by its projection (B, out_features)."""
        features["sentence_embedding"] = self.layers(features["sentence_embedding"])
        return features

    def get_embedding_dimension(self) -> int:
        """Size of the output."""
        return self.out_features

    def to_stock(self) -> list[Module]:
        """The same function as stock modules (`Dense`, `LayerNorm`), with copies of the weights."""
        stock: list[Module] = []
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                dense = Dense(layer.in_features, layer.out_features, activation_function=nn.Identity())
                dense.linear.load_state_dict(layer.state_dict())
                stock.append(dense)
            elif isinstance(layer, nn.LayerNorm):
                norm = LayerNorm(self.out_features)
                norm.norm.load_state_dict(layer.state_dict())
                stock.append(norm)
            elif isinstance(stock[-1], Dense):
                stock[-1].activation_function = layer
            else:  # an activation after a norm: stock has no module for it
                identity = Dense(self.out_features, self.out_features, bias=False, activation_function=layer)
                nn.init.eye_(identity.linear.weight)
                stock.append(identity)
        like: Any = self.layers[0].weight
        return [module.to(like.device, like.dtype) for module in stock]

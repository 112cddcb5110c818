"""The sparse autoencoder: parameters, the maths every architecture shares, and the registry."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

REGISTRY: dict[str, type[SAE]] = {}


@dataclass(frozen=True, eq=False, repr=False)
class SAE:
    """A sparse autoencoder over raw activations ``x [pos, d_in]``; an architecture is a subclass.

    ``hidden_pre = (scale * x - b_dec) @ W_enc + b_enc`` (``b_dec`` only with ``apply_b_dec_to_input``),
    ``feature_acts = activation(hidden_pre)``, ``sae_out = (feature_acts @ W_dec + b_dec) / scale``.
    The form, with ``b_dec`` taken off first, is that of Bricken et al. 2023
    (https://transformer-circuits.pub/2023/monosemantic-features).

    Args:
        W_enc: ``[d_in, d_sae]``, float32 as all of them.
        b_enc: ``[d_sae]``.
        W_dec: ``[d_sae, d_in]``, one direction a feature.
        b_dec: ``[d_in]``.
        scale: the fixed scalar that brings the mean norm of the activations to sqrt(d_in); ``feature_acts`` are
            in these units, ``x`` and ``sae_out`` in the model's own.
        apply_b_dec_to_input: encode ``x - b_dec`` instead of ``x``.
        metadata: model, layer, hook_name, recipe and metrics, for the file.

    Raises:
        ValueError: shapes that do not fit together.
    """

    W_enc: torch.Tensor  # [d_in, d_sae]
    b_enc: torch.Tensor  # [d_sae]
    W_dec: torch.Tensor  # [d_sae, d_in]
    b_dec: torch.Tensor  # [d_in]
    scale: float = 1.0
    apply_b_dec_to_input: bool = True
    metadata: dict[str, Any] = field(default_factory=dict)  # model, layer, hook_name, recipe, metrics

    architecture = ""  # the name in the registry

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        REGISTRY[cls.architecture] = cls

    def __post_init__(self) -> None:
        if self.W_enc.ndim != 2:
            raise ValueError(f"W_enc must be [d_in, d_sae], got {list(self.W_enc.shape)}")
        d_in, d_sae = self.W_enc.shape
        for name, shape in (("b_enc", (d_sae,)), ("W_dec", (d_sae, d_in)), ("b_dec", (d_in,))):
            if tuple(getattr(self, name).shape) != shape:
                raise ValueError(f"{name} must be {list(shape)}, got {list(getattr(self, name).shape)}")

    @property
    def d_in(self) -> int:
        """Width of the activations."""
        return int(self.W_enc.shape[0])

    @property
    def d_sae(self) -> int:
        """Number of features."""
        return int(self.W_enc.shape[1])

    def hidden_pre(self, x: torch.Tensor) -> torch.Tensor:
        """Before the activation function. ``[pos, d_in] -> [pos, d_sae]``."""
        x = x * self.scale
        if self.apply_b_dec_to_input:
            x = x - self.b_dec
        return x @ self.W_enc + self.b_enc

    def activate(self, hidden_pre: torch.Tensor) -> torch.Tensor:
        """The activation function. ``[pos, d_sae] -> [pos, d_sae]``."""
        raise NotImplementedError  # every registered architecture has its own

    def config_fields(self) -> dict[str, Any]:
        """What a saved file must say of this architecture besides the weights, by SAELens' names."""
        return {}

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Feature activations. ``[pos, d_in] -> [pos, d_sae]``."""
        return self.activate(self.hidden_pre(x))

    def decode(self, feature_acts: torch.Tensor) -> torch.Tensor:
        """Reconstruction. ``[pos, d_sae] -> [pos, d_in]``."""
        return (feature_acts @ self.W_dec + self.b_dec) / self.scale

    def __repr__(self) -> str:
        """Sizes and what else is a plain value of an architecture: ``TopKSAE(d_in=192, d_sae=1024, k=16)``."""
        common = {f.name for f in fields(SAE)}
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in common}
        plain = {name: value for name, value in own.items() if isinstance(value, (int, float, str))}
        sizes = {"d_in": self.d_in, "d_sae": self.d_sae} | plain
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in sizes.items())})"

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """``decode(encode(x))``, ``[pos, d_in]``."""
        return self.decode(self.encode(x))

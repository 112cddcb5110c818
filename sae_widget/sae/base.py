"""The sparse autoencoder: parameters, the maths every architecture shares, and the registry."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from sae_widget.sae.normalization import NORMALIZATIONS, normalized

if TYPE_CHECKING:
    from sae_widget.config import TrainConfig

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
        normalize_activations: what is done to each token before anything else, and undone at the end: ``none``,
            ``layer_norm``, ``constant_norm_rescale`` (SAELens') or ``center`` (``sae.normalization``).
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
    normalize_activations: str = "none"
    metadata: dict[str, Any] = field(default_factory=dict)  # model, layer, hook_name, recipe, metrics

    architecture = ""  # the name in the registry
    words = ""  # what a person sees in the form
    about = ""  # a sentence under it: what this kind does, and when to choose it
    elementwise = False  # ``activate`` is one function of each number alone
    trains_apart = False  # training has a rule of its own for it (``training.workspaces``), not ``fire``
    revives_dead = False  # in training, dead features learn what the live ones miss
    vectors: ClassVar[tuple[str, ...]] = ()  # names of its further parameters, each [d_sae]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        REGISTRY[cls.architecture] = cls

    def __post_init__(self) -> None:
        if self.W_enc.ndim != 2:
            raise ValueError(f"W_enc must be [d_in, d_sae], got {list(self.W_enc.shape)}")
        d_in, d_sae = self.W_enc.shape
        shapes = {"b_enc": (d_sae,), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
        for name, shape in (shapes | dict.fromkeys(self.vectors, (d_sae,))).items():
            if tuple(getattr(self, name).shape) != shape:
                raise ValueError(f"{name} must be {list(shape)}, got {list(getattr(self, name).shape)}")
        if self.normalize_activations not in NORMALIZATIONS:
            known = ", ".join(NORMALIZATIONS)
            raise ValueError(f"normalize_activations must be one of {known}, got {self.normalize_activations!r}")

    @property
    def d_in(self) -> int:
        """Width of the activations."""
        return int(self.W_enc.shape[0])

    @property
    def d_sae(self) -> int:
        """Number of features."""
        return int(self.W_enc.shape[1])

    def check_input(self, values: Any, position: Any = None) -> None:
        """Raise unless ``values`` are activations that this SAE can read, and ``position`` has their length.

        Args:
            values: ``[n_tokens, d_in]`` with at least one row.
            position: ``[n_tokens]``, or None for no look at it.

        Raises:
            TypeError: not tensors, or of another dtype.
            ValueError: another shape.
        """
        for name, given in (("values", values), ("position", position)):
            if not isinstance(given, torch.Tensor) and (name == "values" or given is not None):
                raise TypeError(f"{name} must be a torch tensor, got {type(given).__name__}")
        if values.ndim != 2 or values.shape[1] != self.d_in or not len(values):
            wanted = f"[n_tokens, {self.d_in}] with at least one token"
            raise ValueError(f"values must be {wanted}, as this SAE reads them; got shape {list(values.shape)}")
        if values.dtype != self.W_enc.dtype:
            raise TypeError(f"values must be {self.W_enc.dtype} as the SAE is, got {values.dtype}; convert them first")
        if position is not None and position.shape != values.shape[:1]:
            raise ValueError(f"position must be [{len(values)}] like values, got shape {list(position.shape)}")

    def check_feature(self, feature: Any) -> None:
        """Raise ``TypeError`` or ``ValueError`` unless this is the number of a feature."""
        if isinstance(feature, bool) or not hasattr(feature, "__index__"):
            raise TypeError(f"feature must be a whole number, got {feature!r}")
        if not 0 <= feature < self.d_sae:
            raise ValueError(f"feature must be between 0 and {self.d_sae - 1:,}, got {feature:,}")

    def hidden_pre(self, x: torch.Tensor) -> torch.Tensor:
        """Before the activation function. ``[pos, d_in] -> [pos, d_sae]``."""
        return self._read(x) @ self.W_enc + self.b_enc

    def _read(self, x: torch.Tensor) -> torch.Tensor:
        """What the encoder is multiplied with. ``[pos, d_in] -> [pos, d_in]``."""
        x = normalized(x, self.normalize_activations)[0] * self.scale
        return x - self.b_dec if self.apply_b_dec_to_input else x

    def activate(self, hidden_pre: torch.Tensor) -> torch.Tensor:
        """The activation function. ``[pos, d_sae] -> [pos, d_sae]``."""
        raise NotImplementedError  # every registered architecture has its own

    @staticmethod
    def fire(hidden_pre: torch.Tensor, feature_acts: torch.Tensor, config: TrainConfig) -> None:
        """The training rule: ``activate`` into a buffer, with the settings in place of the fields.

        Where a feature fires, its activation must be its ``hidden_pre``: the trainer's gradients are those of
        that. An L1 penalty is added for a kind that reads ``l1_coefficient`` (``config.ARCHITECTURES``).

        Args:
            hidden_pre: ``[batch, d_sae]``, left as it is.
            feature_acts: ``[batch, d_sae]``, overwritten.
            config: the settings.
        """
        raise NotImplementedError  # ``trainable`` has refused those without one

    def config_fields(self) -> dict[str, Any]:
        """What a saved file must say of this architecture besides the weights, by SAELens' names."""
        return {}

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Feature activations. ``[pos, d_in] -> [pos, d_sae]``."""
        return self.activate(self.hidden_pre(x))

    def encode_one(self, x: torch.Tensor, feature: int) -> torch.Tensor:
        """Activation of one feature, ``[pos, d_in] -> [pos]``; where it is ``elementwise``, no other is computed."""
        if not self.elementwise:
            return self.encode(x)[:, feature]
        return self.activate(self._read(x) @ self.W_enc[:, feature] + self.b_enc[feature])

    def decode(self, feature_acts: torch.Tensor, like: torch.Tensor | None = None) -> torch.Tensor:
        """Reconstruction. ``[pos, d_sae] -> [pos, d_in]``.

        Args:
            feature_acts: ``[pos, d_sae]``.
            like: the activations ``[pos, d_in]`` that they are of; needed where ``normalize_activations`` is not
                ``none``, because each token is brought back to its own size and place.

        Raises:
            ValueError: they are needed and missing.
        """
        sae_out = (feature_acts @ self.W_dec + self.b_dec) / self.scale  # [pos, d_in]
        if self.normalize_activations == "none":
            return sae_out
        if like is None:
            raise ValueError(
                f"this SAE normalises each token ({self.normalize_activations}): give decode the activations "
                "that the features are of, as `like`"
            )
        undo = normalized(like, self.normalize_activations)[1]
        return sae_out * undo.gain + undo.shift

    def __repr__(self) -> str:
        """Sizes and what else is a plain value of an architecture: ``TopKSAE(d_in=192, d_sae=1024, k=16)``."""
        common = {f.name for f in fields(SAE)}
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in common}
        plain = {name: value for name, value in own.items() if isinstance(value, (int, float, str))}
        sizes = {"d_in": self.d_in, "d_sae": self.d_sae} | plain
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in sizes.items())})"

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """``decode(encode(x), like=x)``, ``[pos, d_in]``."""
        return self.decode(self.encode(x), x)


def trainable(architecture: str) -> type[SAE]:
    """The class of an architecture that can be trained.

    Raises:
        ValueError: it has no class, or its class has no training rule.
    """
    kind = REGISTRY.get(architecture)
    if kind is None or not _can_train(kind):
        why = "is not in the registry" if kind is None else f"has no training rule: {kind.__name__} lacks `fire`"
        able = ", ".join(name for name, other in REGISTRY.items() if _can_train(other))
        raise ValueError(f"architecture {architecture!r} {why}. Nothing was trained; choose one of {able}.")
    return kind


def _can_train(kind: type[SAE]) -> bool:
    return kind.trains_apart or kind.fire is not SAE.fire

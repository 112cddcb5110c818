"""Settings: frozen, checked when made, changed with ``dataclasses.replace``."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

ARCHITECTURES = {
    "topk": ("k",),
    "batchtopk": ("k",),
    "matryoshka_batchtopk": ("k", "matryoshka_levels"),
    "standard": ("l1_coefficient", "start_firing"),
    "gated": ("l1_coefficient",),
    "jumprelu": ("l0_coefficient", "bandwidth"),
}
"""Kinds of SAE, and the settings that only they read; all else of a kind is in its file in ``sae``."""
HOOK_NAMES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "final_norm")
MAX_TEXT_CHARS = 200_000
MAX_D_SAE = 131_072
MAX_STEPS = 10_000_000
CORPUS_TOKENS = (10, 50_000_000)
"""Least and most tokens of a corpus that can be asked for."""
FIXED_SETTINGS = (
    "architecture",
    "d_sae",
    "seed",
    "skip_first",
    "normalize",
    "center",
    "unit_norm_decoder",
    "tied_init",
    "start_firing",
    "loss_reduction",
    "matryoshka_levels",
    "precision",
    "validation_share",
    "max_norm_multiple",
)
"""Settings that an SAE has for its whole training; the others can change while it trains."""
ALIASES = {
    **dict.fromkeys(("l1", "lambda_", "l1_lambda", "l1_coeff", "l1_weight", "alpha", "sparsity"), "l1_coefficient"),
    **dict.fromkeys(("lr", "rate"), "learning_rate"),
    **dict.fromkeys(("epochs", "n_epochs", "num_epochs", "n_steps", "num_steps"), "steps"),
    **dict.fromkeys(("hidden_dim", "dict_size", "n_features", "num_features", "n_latents", "width"), "d_sae"),
    **dict.fromkeys(("hook", "hook_point", "site"), "hook_name"),
    **dict.fromkeys(("top_k", "topk"), "k"),
    **dict.fromkeys(("model_name", "model_id"), "model"),
    "lambda": "l1_coefficient",
}
"""What others call our keywords."""


class Start(NamedTuple):
    """What an explorer reads and trains on until it is told something else."""

    text: str = "It was the best of times, it was the worst of times."
    corpus: str = "documentation"
    corpus_tokens: int = 30_000


START = Start()


@dataclass(frozen=True)
class TrainConfig:
    """What decides a training run, besides the activations.

    With the defaults of ``standard`` nearly all known features are found again where there are some, and with
    those of ``topk`` when ``k`` fits: with a ``k`` far above the number of features on a token the directions
    mix. ``original_tutorial`` finds none of them.
    Raises ``ValueError`` or ``TypeError`` with the allowed range when a field is out of it.
    """

    architecture: str = "topk"
    """One of ``ARCHITECTURES``."""
    d_sae: int = 1024
    """Number of features."""
    l1_coefficient: float = 1.0
    """Weight of the sparsity penalty (standard); in units where activations have mean norm sqrt(d_in)."""
    k: int = 16
    """Features that fire on each token (topk); how many truly do is not known, so compare several."""
    matryoshka_levels: int = 4
    """Nested dictionaries (matryoshka_batchtopk): the first d_sae / 2, d_sae / 4, ... features alone must do too."""
    l0_coefficient: float = 0.3
    """Weight of the penalty on the number of features that fire (jumprelu)."""
    bandwidth: float = 0.5
    """Width of the window around the threshold in which the threshold learns (jumprelu)."""
    target_l0: float = 0.0
    """Features that should fire on a token: the trainer finds the sparsity setting for it; 0: the setting decides."""
    learning_rate: float = 1e-3
    """Adam's step size at the top of its schedule; for wide topk SAEs 2e-4 / sqrt(d_sae / 16384) is usual."""
    steps: int = 2000
    """Optimizer steps."""
    batch_size: int = 1024
    """Tokens in a step; 0 takes all of them (full batch)."""
    seed: int = 0
    """Start of the weights and order of the batches."""
    skip_first: bool = True
    """Leave position 0 of each window out of training and of the scales."""
    normalize: bool = True
    """Divide the activations by one scalar so that their mean norm is sqrt(d_in)."""
    center: bool = True
    """Start ``b_dec`` at the median and encode ``x - b_dec``."""
    unit_norm_decoder: bool = True
    """Keep every decoder row at norm 1."""
    tied_init: bool = True
    """Start the encoder at the decoder transposed; otherwise torch's ``nn.Linear`` start."""
    start_firing: float = 0.03
    """Share of the tokens on which a feature fires at first (standard with a penalty, tied start); 0: biases are 0."""
    loss_reduction: str = "sum"
    """``sum``: squared error and L1 summed over the width, averaged over tokens; ``mean``: averaged over both."""
    l1_warmup: float = 0.05
    """Share of the run in which the L1 weight rises from zero."""
    lr_warmup: float = 0.05
    """Share of the run in which the learning rate rises from zero."""
    lr_schedule: str = "linear"
    """``linear``: constant, then to zero over the last fifth; ``halving``: halved every 100 steps; ``constant``."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 leaves them."""
    resample_every: int = 0
    """Steps after which dead features start again from the tokens that are reconstructed worst; 0: never."""
    validation_share: float = 0.0
    """Share of the windows that is kept out of training and measured on instead."""
    max_norm_multiple: float = 10.0
    """Tokens behind position 0 with more than so many times the median norm are left out of training; 0: none."""
    precision: str = "auto"
    """Matrix products in ``float32`` or ``bfloat16``; ``auto``: bfloat16 where it was measured to be faster."""

    def __post_init__(self) -> None:
        _choice("architecture", self.architecture, tuple(ARCHITECTURES))
        _choice("loss_reduction", self.loss_reduction, ("sum", "mean"))
        _choice("lr_schedule", self.lr_schedule, ("linear", "halving", "constant"))
        _whole("d_sae", self.d_sae, 1, MAX_D_SAE)
        _whole("k", self.k, 1, MAX_D_SAE)
        _whole("steps", self.steps, 1, MAX_STEPS)
        _whole("batch_size", self.batch_size, 0, 1_000_000)
        _whole("seed", self.seed, 0, 2**32 - 1)
        _number("l1_coefficient", self.l1_coefficient, 0.0, 1e6)
        _number("learning_rate", self.learning_rate, 1e-8, 10.0)
        _number("l1_warmup", self.l1_warmup, 0.0, 1.0)
        _number("lr_warmup", self.lr_warmup, 0.0, 1.0)
        _number("max_grad_norm", self.max_grad_norm, 0.0, 1e6)
        _choice("precision", self.precision, ("auto", "float32", "bfloat16"))
        _whole("matryoshka_levels", self.matryoshka_levels, 1, 12)
        _whole("resample_every", self.resample_every, 0, MAX_STEPS)
        _number("l0_coefficient", self.l0_coefficient, 0.0, 1e6)
        _number("start_firing", self.start_firing, 0.0, 0.5)
        _number("bandwidth", self.bandwidth, 1e-6, 1e3)
        _number("target_l0", self.target_l0, 0.0, float(self.d_sae))
        _number("validation_share", self.validation_share, 0.0, 0.5)
        _number("max_norm_multiple", self.max_norm_multiple, 0.0, 1e6)
        for name in ("skip_first", "normalize", "center", "unit_norm_decoder", "tied_init"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False, got {_told(getattr(self, name))}")
        if "k" in ARCHITECTURES[self.architecture] and self.k > self.d_sae:
            raise ValueError(f"k must be between 1 and d_sae ({self.d_sae}), got {self.k}")

    @property
    def wanted_k(self) -> int:
        """Features that fire on a token, of kinds with a ``k``: ``target_l0`` is one where it is given."""
        return max(1, min(round(self.target_l0) if self.target_l0 else self.k, self.d_sae))

    @classmethod
    def original_tutorial(cls, **changes: Any) -> TrainConfig:
        """The tutorial that this package grew from: 16 features, 500 full-batch epochs, mean losses.

        With the tutorial's own names: ``encoder = nn.Linear(d_in, 16)``, ReLU, ``decoder = nn.Linear(16, d_in)``,
        ``MSELoss + 0.01 * mean(|encoded|)``, Adam 1e-3, ``StepLR(100, 0.5)``.
        """
        original = cls(
            architecture="standard",
            d_sae=16,
            l1_coefficient=0.01,
            learning_rate=1e-3,
            steps=500,
            batch_size=0,
            skip_first=False,
            normalize=False,
            center=False,
            unit_norm_decoder=False,
            tied_init=False,
            start_firing=0.0,
            loss_reduction="mean",
            l1_warmup=0.0,
            lr_warmup=0.0,
            lr_schedule="halving",
            max_grad_norm=0.0,
            max_norm_multiple=0.0,
            precision="float32",
        )
        return original.changed(**changes)

    def changed(self, **changes: Any) -> TrainConfig:
        """A copy with some fields changed; an unknown field is refused with the nearest known one."""
        refuse_unknown(changes, [f.name for f in fields(self)])
        return replace(self, **changes)

    def with_live(self, wanted: TrainConfig) -> TrainConfig:
        """A copy with the values of ``wanted`` in every field but those that an SAE has for its whole training.

        Raises:
            ValueError: values that do not fit those that stay, such as a ``k`` above ``d_sae``.
        """
        live = (f.name for f in fields(self) if f.name not in FIXED_SETTINGS)
        return replace(self, **{name: getattr(wanted, name) for name in live})


def refuse_unknown(given: dict[str, Any] | list[str], known: list[str]) -> None:
    """Raise ``TypeError`` naming the first keyword that is not known, and the nearest that is."""
    for name in given:
        if name not in known:
            if name in ("device", "dtype"):
                raise TypeError(f"there is no setting {name!r}: everything runs on the CPU in float32; leave it out")
            near = (
                [ALIASES.get(name, "")] if ALIASES.get(name) in known else difflib.get_close_matches(name, known, n=1)
            )
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(known))}"
            raise TypeError(f"unknown setting {name!r}{hint}")


def check_inputs(inputs: dict[str, Any]) -> None:
    """Refuse an input of an explorer that has another type or is out of its range, by name with what is allowed."""
    types = {"model": str, "corpus": str, "layer": int, "corpus_tokens": int, "prepend_bos": bool}
    for name, wanted in types.items():
        value = inputs.get(name)
        if name in inputs and (not isinstance(value, wanted) or (wanted is int and isinstance(value, bool))):
            raise TypeError(f"{name} must be {wanted.__name__}, got {value!r}")
    low, high = CORPUS_TOKENS
    if not low <= inputs.get("corpus_tokens", low) <= high:
        raise ValueError(f"corpus_tokens must be between {low:,} and {high:,}, got {inputs['corpus_tokens']:,}")
    if inputs.get("layer", 0) < 0:
        raise ValueError(f"layer must be 0 or more, got {inputs['layer']}")
    if inputs.get("hook_name", HOOK_NAMES[0]) not in HOOK_NAMES:
        raise ValueError(f"hook_name must be one of {', '.join(HOOK_NAMES)}, got {inputs['hook_name']!r}")


def _choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {_told(value)}")


def _whole(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, got {_told(value)}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be between {low:,} and {high:,}, got {_told(value)}")


def _number(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {_told(value)}")
    if not low <= value <= high:  # which NaN is not either
        raise ValueError(f"{name} must be between {low:g} and {high:g}, got {_told(value)}")


def _told(value: object) -> str:
    """A value as it is told in a sentence: numbers with their separators, nothing of any length."""
    try:
        told = f"{value:,}" if type(value) is int else f"{value:g}" if isinstance(value, float) else repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"
    return told if len(told) <= 60 else f"{told[:57]}..."

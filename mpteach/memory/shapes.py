"""Shapes of decoders whose bytes can be counted, and the public ones by name."""

from dataclasses import dataclass
from typing import Any

from mpteach.errors import require
from mpteach.inputs import require_one_of, shown


@dataclass(frozen=True)
class Shape:
    """The shape of a pre-norm decoder; what is not given is as in GPT-2.

    `kv_heads` (default: `heads`) are the heads of keys and values, `mlp_hidden` (default:
    4 x hidden) is the width inside the MLP. A table of learned positions is as long as
    the sequence; so are the cosines and sines of rotary positions, which layers share.
    `biases`: those of the linears in the blocks; the head has none. Raises InputError for
    a shape that cannot be built.
    """

    layers: int
    heads: int
    hidden: int
    vocabulary: int
    kv_heads: int | None = None
    mlp_hidden: int | None = None
    norm: str = "layernorm"
    mlp: str = "gelu"
    positions: str = "learned"
    tied: bool = True
    biases: bool = True

    def __post_init__(self) -> None:
        for name in ("layers", "heads", "hidden", "vocabulary"):
            require_count(name, getattr(self, name))
        for name in ("kv_heads", "mlp_hidden"):
            if getattr(self, name) is not None:
                require_count(name, getattr(self, name))
        require_one_of("norm", self.norm, ("layernorm", "rmsnorm"))
        require_one_of("mlp", self.mlp, ("gelu", "swiglu"))
        require_one_of("positions", self.positions, ("learned", "rotary"))
        _require_divides("heads", self.heads, "hidden", self.hidden)
        if self.kv_heads is not None:
            _require_divides("kv_heads", self.kv_heads, "heads", self.heads)
        width = self.hidden // self.heads
        require(
            self.positions == "learned" or width % 2 == 0,
            f"hidden / heads was {width}: give an even one, rotary positions turn pairs.",
        )


def require_count(name: str, given: Any) -> None:
    """Raise InputError unless `given` is a whole number of at least 1."""
    require(
        type(given) is int and given >= 1,
        f"{name} was {shown(given)}: give a whole number of at least 1.",
    )


def _require_divides(name: str, given: int, of: str, whole: int) -> None:
    require(
        whole % given == 0,
        f"{name} was {given}: give a number that divides {of}, {whole}.",
    )


PRESETS = {
    # Radford et al. 2019, in the four sizes that were published.
    "gpt2": Shape(layers=12, heads=12, hidden=768, vocabulary=50257),
    "gpt2-medium": Shape(layers=24, heads=16, hidden=1024, vocabulary=50257),
    "gpt2-large": Shape(layers=36, heads=20, hidden=1280, vocabulary=50257),
    "gpt2-xl": Shape(layers=48, heads=25, hidden=1600, vocabulary=50257),
    # Jiang et al. 2023 (arXiv 2310.06825), version 0.1: 7,241,732,096 parameters.
    "mistral-7b": Shape(
        layers=32,
        heads=32,
        hidden=4096,
        vocabulary=32000,
        kv_heads=8,
        mlp_hidden=14336,
        norm="rmsnorm",
        mlp="swiglu",
        positions="rotary",
        tied=False,
        biases=False,
    ),
}

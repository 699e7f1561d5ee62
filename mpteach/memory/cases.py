"""A training step by its settings: which model, which batch, in which precision.

A Setting is plain data, for a record or a command; `case` makes of it what `trace` and
`measure` take.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from mpteach.errors import InputError, require
from mpteach.inputs import shown
from mpteach.memory import decoder, zoo
from mpteach.memory.shapes import PRESETS, Shape, require_count
from mpteach.memory.step import output_is_loss
from mpteach.memory.zoo import Case

# Decoders for measurements: one whose peak lies inside the backward pass, and one in
# today's style.
SHAPES = PRESETS | {
    "small": Shape(layers=4, heads=8, hidden=512, vocabulary=256),
    "modern": replace(
        PRESETS["mistral-7b"],
        layers=4,
        heads=16,
        hidden=1024,
        kv_heads=4,
        mlp_hidden=2816,
    ),
}


@dataclass(frozen=True)
class Setting:
    """What decides the memory of a step; `sequence` and `attention` are for decoders.

    `model`: a name of `SHAPES` or `zoo.MODELS`. `batch` is that of one micro-batch, as in
    `trace`; in `formula` it is that of the whole step. The rest as there.
    Raises InputError for a value that no step can have.
    """

    model: str
    batch: int
    sequence: int = 1024
    recipe: str = "fp32"
    optimizer: str = "adamw-fused"
    attention: str = "sdpa"
    dropout: float = 0.0
    checkpointing: bool = False
    micro_batches: int = 1
    evaluate: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or self.model not in (*SHAPES, *zoo.MODELS):
            raise InputError(
                f"unknown model {shown(self.model)}: choose from "
                f"{', '.join((*SHAPES, *zoo.MODELS))}."
            )
        for name in ("batch", "sequence", "micro_batches"):
            require_count(name, getattr(self, name))
        require(
            isinstance(self.dropout, int | float) and 0 <= self.dropout < 1,
            f"dropout was {shown(self.dropout)}: give a number from 0 up to 1.",
        )

    @property
    def name(self) -> str:
        """Say it in a line: what differs from the defaults."""
        words = [self.model, str(self.batch)]
        if self.model in SHAPES:
            words[1] += f" x {self.sequence}"
        words += [self.recipe] if self.evaluate else [self.recipe, self.optimizer]
        for field in fields(self)[5:]:
            value = getattr(self, field.name)
            if value != field.default:
                words.append(field.name if value is True else f"{value}")
        return ", ".join(words)


def case(setting: Setting) -> Case:
    """Return how to make the model and the batch of a setting, and its loss."""
    if setting.model in zoo.MODELS:
        return zoo.case(setting.model, setting.batch)
    shape, size = SHAPES[setting.model], (setting.batch, setting.sequence)
    return decoder_case(shape, size, setting)


def decoder_case(shape: Shape, size: tuple[int, int], setting: Any) -> Case:
    """Return the Case of a decoder of any shape; `size` is batch and sequence.

    Of `setting` attention, dropout and checkpointing are read.
    """

    def make() -> decoder.Decoder:
        return decoder.Decoder(
            shape,
            size[1],
            setting.attention,
            setting.dropout,
            setting.checkpointing,
        )

    def batch() -> tuple:
        return tuple(torch.randint(shape.vocabulary, size) for _ in range(2))

    return Case(make, batch, output_is_loss)


def how(setting: Setting) -> dict[str, Any]:
    """Return the arguments that `trace` and `measure` share, beside the Case."""
    names = ("recipe", "optimizer", "micro_batches", "evaluate")
    return {name: getattr(setting, name) for name in names}

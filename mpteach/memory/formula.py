"""The bytes of one training step of a GPT, by equations that fit on paper.

The model is a pre-norm decoder on CUDA, with torch's fused kernels for attention (unless
materialised) and norms. Queries, keys and values come from one product, and so do the two
halves of SwiGLU; keys that heads share are repeated for each. Bytes are "requested": what
tensors ask for, before an allocator rounds it up. Tested against what an H200 measured.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import CodeType
from typing import Any

from mpteach.errors import InputError, require
from mpteach.inputs import require_one_of, shown
from mpteach.memory import recipes
from mpteach.memory.equations import SYMBOLS, Item, Step
from mpteach.memory.moments import plans
from mpteach.memory.shapes import PRESETS, Shape, require_count

__all__ = ["PRESETS", "SYMBOLS", "Account", "Moment", "Shape", "Term", "fit", "formula"]

ATTENTIONS = ("sdpa", "materialised")
OPTIMIZERS = (*recipes.OPTIMIZERS, "adam8bit")
# Measured on an H200 with torch 2.11: for each of two threads, the one that runs the
# forward pass and autograd's; cublasLt, for products with a bias, has one more.
CUBLAS_BYTES, CUBLASLT_BYTES = 32 * 2**20, 2**20
# What the forward pass leaves for the backward pass.
ACTIVATIONS = (
    "embeddings",
    "residual stream",
    "norms",
    "linear inputs",
    "attention",
    "activation function",
    "dropout",
    "logits",
    "loss",
    "weight casts",
)


@dataclass(frozen=True)
class Term:
    """One item of an account: its bytes are what `equation` gives for `symbols`."""

    name: str
    group: str
    equation: str
    symbols: Mapping[str, int]

    @cached_property
    def bytes(self) -> int:
        """The value of the equation."""
        return eval(_compiled(self.equation), {"__builtins__": {}}, self.symbols)

    @property
    def worked(self) -> str:
        """The equation with its numbers filled in, e.g. "12 x 2 x (3 + 4^2)"."""
        filled = re.sub(
            "[A-Za-z]", lambda found: f"{self.symbols[found[0]]}", self.equation
        )
        return _JUXTAPOSED.sub(" x ", filled)


# A space between two factors, as in "2 h (u + 1)".
_JUXTAPOSED = re.compile(r"(?<=[\w)]) (?=[\w(])")


@lru_cache(maxsize=None)
def _compiled(equation: str) -> CodeType:
    """Compile "2 l (h + u)^2" as Python's 2 * l * (h + u)**2."""
    source = _JUXTAPOSED.sub(" * ", equation).replace("^", "**")
    return compile(source, equation, "eval")


@dataclass(frozen=True)
class Moment:
    """All that is alive at one moment of a step that may be the fullest."""

    name: str
    phase: str
    why: str
    terms: tuple[Term, ...]

    @cached_property
    def bytes(self) -> int:
        """The sum of the terms."""
        return sum(term.bytes for term in self.terms)


@dataclass(frozen=True)
class Account:
    """Every byte of a training step, and the moments at which it may be fullest.

    `terms` lists each tensor once: what is alive at the gradient of the loss and at the
    step. Other temporaries of the backward pass stand in `moments`. `symbols` are the
    values of `SYMBOLS`. All figures are bytes.
    """

    symbols: Mapping[str, int]
    moments: tuple[Moment, ...]

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        """The terms of the two moments, in the order in which they arise."""
        chosen = [self.moment("the gradient of the loss"), self.moments[-1]]
        return tuple({term.name: term for one in chosen for term in one.terms}.values())

    def moment(self, name: str) -> Moment:
        """Return the moment called `name`; raise InputError that lists the names."""
        names = tuple(moment.name for moment in self.moments)
        require_one_of("moment", name, names)
        return self.moments[names.index(name)]

    def total(self, *groups: str) -> int:
        """Return the bytes of all terms of these groups."""
        return sum(term.bytes for term in self.terms if term.group in groups)

    @property
    def parameters(self) -> int:
        """Weights and buffers, without float32 masters."""
        return self.total("parameters")

    @property
    def gradients(self) -> int:
        """The gradients that a backward pass leaves."""
        return self.total("gradients")

    @property
    def optimizer_state(self) -> int:
        """What the optimizer keeps, without float32 masters."""
        return self.total("optimizer")

    @property
    def activations(self) -> int:
        """What a forward pass leaves for the backward pass, weight casts included."""
        return self.total(*ACTIVATIONS)

    @property
    def peak(self) -> Moment:
        """The fullest moment."""
        return max(self.moments, key=lambda moment: moment.bytes)

    @property
    def requested_peak(self) -> int:
        """The bytes of the fullest moment."""
        return self.peak.bytes

    @property
    def phase_of_peak(self) -> str:
        """The phase of the fullest moment: "forward", "backward" or "step"."""
        return self.peak.phase

    @property
    def why(self) -> str:
        """One sentence on which moment is the fullest, and what it holds."""
        return f"Memory is fullest at {self.peak.name}: {self.peak.why}."


def formula(
    config: Shape,
    recipe: str,
    optimizer: str,
    batch: int,
    sequence: int,
    attention: str = "sdpa",
    dropout: float = 0.0,
    checkpointing: bool = False,
    micro_batches: int = 1,
    cublas_workspace_bytes: int | None = None,
) -> Account:
    """Count the bytes of one training step, any but the first.

    `batch` sequences of `sequence` tokens, and as many targets, pass in `micro_batches`
    equal parts. "materialised" attention keeps its scores, and a [T, T] mask a layer.
    `dropout` acts on the embeddings, on the attention weights, and on what attention and
    MLP add. With `checkpointing` a block keeps its input alone and is computed again. An
    `optimizer` without ending is "-foreach", torch's own choice on CUDA; weight decay
    other than AdamW's is 0; gradients are dropped after the step. The workspace of cuBLAS
    is what an H200 was seen to take, unless given. Raises InputError for what cannot be
    run.
    """
    require(isinstance(config, Shape), f"config was {shown(config)}: give a Shape.")
    workspace = cublas_workspace_bytes
    if workspace is None:
        threads_with_bias = config.biases * (1 + bool(checkpointing))
        workspace = 2 * CUBLAS_BYTES + CUBLASLT_BYTES * threads_with_bias
    _require_run(batch, sequence, micro_batches, workspace)
    require_one_of("attention", attention, ATTENTIONS)
    _require_share(dropout)
    step = Step(
        config,
        recipes.get(recipe),
        _full_name(optimizer),
        batch // micro_batches,
        sequence,
        micro_batches,
        materialised=attention == "materialised",
        drops=dropout > 0,
        checkpointing=bool(checkpointing),
        workspace=workspace,
    )
    symbols = _symbols(step)
    moments = tuple(
        Moment(name, phase, why, tuple(Term(*item, symbols) for item in items))
        for name, phase, why, items in plans(step)
    )
    return Account(symbols, moments)


def fit(
    budget_bytes: int,
    config: Shape,
    recipe: str,
    optimizer: str,
    sequence: int,
    micro_batches: int = 1,
    **options: Any,
) -> int:
    """Return the largest batch whose requested peak is at most `budget_bytes`, or 0.

    It is a multiple of `micro_batches`; `options` are those of `formula`. An allocator
    takes more than is requested: leave it a few percent.
    """
    require_count("budget_bytes", budget_bytes)
    require_count("micro_batches", micro_batches)

    def is_too_large(part: int) -> bool:
        sizes = (part * micro_batches, sequence)
        account = formula(
            config, recipe, optimizer, *sizes, micro_batches=micro_batches, **options
        )
        return account.requested_peak > budget_bytes

    beyond = 1
    while not is_too_large(beyond):
        beyond *= 2
    parts = range(beyond // 2 + 1, beyond + 1)  # the last one is too large
    return (parts[bisect_left(parts, True, key=is_too_large)] - 1) * micro_batches


def _symbols(step: Step) -> dict[str, int]:
    """Return the values of `SYMBOLS`: sizes first, then the sums that stand on them."""
    symbols = step.sizes()
    symbols["P"] = _sum(step.parameters(), symbols)
    blocks = [part for part in step.parameters() if part.group == "block"]
    symbols["Q"] = _sum(blocks, symbols) // symbols["l"]
    symbols["B"] = _sum(step.kept(), symbols)
    symbols["q"] = -(-symbols["P"] // 2048)
    return symbols


def _sum(items: Iterable[Item], symbols: Mapping[str, int]) -> int:
    return sum(Term(*item, symbols).bytes for item in items)


def _full_name(optimizer: Any) -> str:
    """Return "adamw-foreach" for "adamw"; raise InputError that lists the names."""
    full = f"{optimizer}-foreach"
    if full in OPTIMIZERS:
        return full
    if not isinstance(optimizer, str) or optimizer not in OPTIMIZERS:
        names = ", ".join(OPTIMIZERS)
        raise InputError(f"unknown optimizer {shown(optimizer)}: choose from {names}.")
    return optimizer


def _require_run(batch: Any, sequence: Any, micro_batches: Any, workspace: Any) -> None:
    require_count("batch", batch)
    require_count("sequence", sequence)
    require_count("micro_batches", micro_batches)
    require(
        batch % micro_batches == 0,
        f"micro_batches was {micro_batches}: give a divisor of the batch, {batch}.",
    )
    require(
        type(workspace) is int and workspace >= 0,
        f"cublas_workspace_bytes was {shown(workspace)}: give a whole number from 0 on.",
    )


def _require_share(dropout: Any) -> None:
    number = isinstance(dropout, int | float) and not isinstance(dropout, bool)
    require(
        number and 0 <= dropout < 1,
        f"dropout was {shown(dropout)}: give a number from 0 to 1, 1 excluded.",
    )

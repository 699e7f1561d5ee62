"""What a training run is given, and what it leaves behind."""

import math
import statistics
from dataclasses import dataclass, field
from typing import Any

from mpteach.errors import InputError
from mpteach.inputs import shown

MOST = 1_000_000  # beyond any run of this course: a slip of the keyboard is told
COMPILED = ("", "blocks", "whole")


@dataclass(frozen=True)
class Settings:
    """What every run of a comparison shares, beside model and text.

    The learning rate rises linearly over `warmup_steps`. From there on it falls along
    half a cosine to `final_rate` times its peak at the last step. `beta2` is GPT-3's
    (Brown et al. 2020, appendix B), not torch's 0.999: in bfloat16 0.999 v rounds back
    to v. Gradient shares are taken at step 1 and at every `gradient_every`-th step. The
    run ends after `patience` losses in a row that are not finite. `compiled` says what
    torch.compile gets: nothing (""), each of the "blocks" and the head, or the "whole"
    model; then optimizers are fused too. Raises InputError for a value no run can have.
    """

    steps: int = 400
    batch: int = 32
    learning_rate: float = 6e-4
    warmup_steps: int = 50
    beta2: float = 0.95
    validation_batches: int = 20
    gradient_every: int = 50
    final_rate: float = 1.0
    patience: int = 1
    compiled: str = ""

    def __post_init__(self) -> None:
        counts = ("steps", "batch", "validation_batches", "gradient_every", "patience")
        for name in counts:
            require_count(name, getattr(self, name))
        require_count("warmup_steps", self.warmup_steps, lowest=0)
        for name, highest in (("learning_rate", MOST), ("beta2", 1)):
            value = getattr(self, name)
            if not _is_number(value) or not 0 < value < highest:
                raise InputError(
                    f"{name} was {shown(value)}: give a number between 0 and {highest:,}."
                )
        rate = self.final_rate
        if not _is_number(rate) or not 0 <= rate <= 1:
            raise InputError(
                f"final_rate was {shown(rate)}: give a number from 0 to 1."
            )
        if not isinstance(self.compiled, str) or self.compiled not in COMPILED:
            raise InputError(
                f"compiled was {shown(self.compiled)}: give 'blocks', 'whole', or ''."
            )

    def is_sampled(self, step: int) -> bool:
        """Whether gradient shares are taken at `step`; such steps are not timed."""
        return step == 1 or step % self.gradient_every == 0

    def rate(self, step: int) -> float:
        """The learning rate of `step`, from 1."""
        warm = min(1.0, step / max(1, self.warmup_steps))
        decaying = max(1, self.steps - self.warmup_steps)
        done = max(0, step - self.warmup_steps) / decaying
        cosine = (1 + math.cos(math.pi * done)) / 2
        return (
            self.learning_rate
            * warm
            * (self.final_rate + (1 - self.final_rate) * cosine)
        )


def require_count(name: str, value: Any, lowest: int = 1) -> None:
    """Raise InputError unless `value` is a whole number from `lowest` to a million."""
    if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
        raise InputError(
            f"{name} was {shown(value)}: it must be a whole number, at least {lowest}."
        )
    if value > MOST:
        raise InputError(f"{name} was {shown(value)}: it must be at most {MOST:,}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass
class Run:
    """What one run did. Losses in nats a token; times in seconds; None: not known.

    `loss_scale` and `gradients` hold what changed or was sampled, by step (from 1).
    `non_finite_step` is the first of the losses, not finite, that ended the run.
    `final_loss` is the mean of those of the last 20 training losses that are finite.
    `energy_joules` is what the GPU says it took for all steps, gradient samples too.
    """

    recipe: str
    seed: int
    losses: list[float | None] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    loss_scale: list[tuple[int, float]] = field(default_factory=list)
    skipped_steps: list[int] = field(default_factory=list)
    gradients: list[dict] = field(default_factory=list)
    non_finite_step: int | None = None
    final_loss: float | None = None
    validation_loss: float | None = None
    tokens_per_second: float | None = None
    forward_tokens_per_second: float | None = None
    peak_allocated_bytes: int | None = None
    peak_reserved_bytes: int | None = None
    energy_joules: float | None = None

    def note_step(self, seconds: float, loss: float, patience: int) -> None:
        """Add a step; set `non_finite_step` where it ends the run."""
        self.seconds.append(round(seconds, 6))
        finite = math.isfinite(loss)
        # Nine digits tell any two float32 apart.
        self.losses.append(float(f"{loss:.9g}") if finite else None)
        if self.losses[-patience:] == [None] * patience:
            self.non_finite_step = len(self.losses) - patience + 1

    def note_end(self, held_out: float, forward: float) -> None:
        """Set the final losses, None where none is finite, and the forward pass's speed."""
        last = [loss for loss in self.losses[-20:] if loss is not None]
        self.final_loss = statistics.fmean(last) if last else None
        self.forward_tokens_per_second = forward
        # The last step can break a model whose losses were all finite.
        self.validation_loss = held_out if math.isfinite(held_out) else None

    def note_scale(self, step: int, before: float, scaler: Any) -> None:
        """Note the loss scale that `step` used, and by its fall that it was skipped."""
        if not scaler.is_enabled():
            return
        if not self.loss_scale or self.loss_scale[-1][1] != before:
            self.loss_scale.append((step, before))
        # A lowered scale is the only sign torch's scaler gives of a step it skipped.
        if scaler.get_scale() < before:
            self.skipped_steps.append(step)

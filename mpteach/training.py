"""One training run: a loop with no branch for precision, which returns a record of itself."""

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from mpteach import formats
from mpteach.data import Corpus, windows
from mpteach.errors import InputError
from mpteach.recipes import Recipe

# Left out of timings: the first calls allocate, choose kernels and load code.
WARM_UP_STEPS = 10
MOST = 1_000_000  # beyond any run of this course: a slip of the keyboard is told


@dataclass(frozen=True)
class Settings:
    """What every run of a comparison shares, beside model and text.

    The learning rate rises linearly over `warmup_steps`. `beta2` is GPT-3's
    (Brown et al. 2020, appendix B), not torch's 0.999: in bfloat16 0.999 v rounds back to v.
    From there on it falls along half a cosine to `final_rate` times its peak at the last
    step. Gradient shares are taken at step 1 and at every `gradient_every`-th step.
    Raises InputError for a value that no run can have.
    """

    steps: int = 400
    batch: int = 32
    learning_rate: float = 6e-4
    warmup_steps: int = 50
    beta2: float = 0.95
    validation_batches: int = 20
    gradient_every: int = 50
    final_rate: float = 1.0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "validation_batches", "gradient_every"):
            require_count(name, getattr(self, name))
        require_count("warmup_steps", self.warmup_steps, lowest=0)
        for name, highest in (("learning_rate", math.inf), ("beta2", 1)):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value < highest:
                raise InputError(
                    f"{name} was {value!r}: give a number between 0 and {highest}."
                )
        rate = self.final_rate
        if not isinstance(rate, int | float) or not 0 <= rate <= 1:
            raise InputError(f"final_rate was {rate!r}: give a number from 0 to 1.")

    def is_sampled(self, step: int) -> bool:
        """Whether gradient shares are taken at `step`; such steps are not timed."""
        return step == 1 or step % self.gradient_every == 0


def require_count(name: str, value: int, lowest: int = 1) -> None:
    """Raise InputError unless `value` is a whole number from `lowest` to a million."""
    if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
        raise InputError(
            f"{name} was {value!r}: it must be a whole number, at least {lowest}."
        )
    if value > MOST:
        raise InputError(f"{name} was {value}: it must be at most {MOST:,}.")


@dataclass
class Run:
    """What one run did. Losses in nats a token; times in seconds; None: not known.

    `loss_scale` and `gradients` hold what changed or was sampled, by step (from 1).
    `non_finite_step` is the first step whose loss was not finite; the run ends there.
    `final_loss` is the mean of the last 20 training losses.
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


def adamw(model: nn.Module, settings: Settings) -> Optimizer:
    """Return torch's AdamW, as it comes, on the parameters of `model`."""
    betas = (0.9, settings.beta2)
    return torch.optim.AdamW(model.parameters(), settings.learning_rate, betas)


def train(
    model: nn.Module,
    corpus: Corpus,
    recipe: Recipe,
    settings: Settings,
    seed: int,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    make_optimizer: Callable[..., Optimizer] = adamw,
    make_scaler: Callable[..., Any] = torch.amp.GradScaler,
) -> Run:
    """Train `model` in place, where it lies, on batches drawn by `seed`; return the Run.

    The model has a `config.sequence` and maps tokens [B, T] to logits [B, T, V].
    `on_step(step, loss)` is called after every step. `make_optimizer(model, settings)`
    and `make_scaler(device, enabled=...)` may put others in place of torch's own.
    """
    run, device = Run(recipe.name, seed), next(model.parameters()).device.type
    learning, held_out = corpus.split(device, model.config.sequence)
    model.to(getattr(torch, recipe.weights))
    optimizer = make_optimizer(model, settings)
    scaler = make_scaler(device, enabled=recipe.scale_loss)
    batches = _batches(learning, model.config.sequence, settings, seed)
    _reset_peak(device)
    with _tf32(recipe.tf32):
        for step, (tokens, targets) in zip(range(1, settings.steps + 1), batches):
            start, scale = _clock(device), scaler.get_scale()
            _set_learning_rate(optimizer, settings, step)
            with _autocast(recipe, device):
                loss = cross_entropy(model(tokens), targets)
            scaler.scale(loss).backward()
            if settings.is_sampled(step):
                run.gradients.append({"step": step, **gradient_shares(model, scale)})
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            _note_step(run, step, _clock(device) - start, loss.item())
            _note_scale(run, step, scaler, scale)
            on_step(step, loss.item())
            if run.non_finite_step:
                break
    _note_peak(run, device)
    if not run.non_finite_step:
        _note_results(run, model, held_out, recipe, settings)
    return run


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross entropy of logits [B, T, V] and targets [B, T], in nats a token."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


@torch.no_grad()
def evaluate(
    model: nn.Module, tokens: Tensor, recipe: Recipe, settings: Settings
) -> tuple[float, float]:
    """Return mean loss and tokens per second of the forward pass over the held-out `tokens`.

    The windows are evenly spaced. The products are the recipe's; the loss is taken in
    float32, since a bfloat16 loss is too coarse to compare. The speed is the median batch's.
    """
    device, sequence = tokens.device.type, model.config.sequence
    count = settings.validation_batches * settings.batch
    starts = torch.linspace(0, len(tokens) - sequence - 1, count).long()
    losses, seconds = [], []
    with _tf32(recipe.tf32):
        for part in starts.split(settings.batch):
            inputs, targets = windows(tokens, part, sequence)
            start = _clock(device)
            with _autocast(recipe, device):
                logits = model(inputs)
            seconds.append(_clock(device) - start)
            losses.append(cross_entropy(logits.float(), targets).item())
    speed = settings.batch * sequence / statistics.median(seconds)
    return statistics.fmean(losses), speed


def gradient_shares(model: nn.Module, scale: float = 1.0) -> dict[str, float]:
    """Shares of gradient elements, after division by `scale`, by what float16 makes of them.

    `zero` is exact zeros. `below_normal` and `below_subnormal` are elements other than zero
    under float16's smallest normal and smallest subnormal; the second is part of the first.
    """
    half = formats.get("float16")
    counts, total = torch.zeros(3, dtype=torch.int64), 0
    for parameter in model.parameters():
        if parameter.grad is None:
            continue
        size = parameter.grad.abs().float() / scale
        limits = (half.smallest_normal, half.smallest_subnormal)
        at_zero = (size == 0).sum()
        below = [(size < limit).sum() - at_zero for limit in limits]
        counts += torch.stack([at_zero, *below]).cpu()
        total += size.numel()
    names = ("zero", "below_normal", "below_subnormal")
    return dict(zip(names, (counts / total).tolist()))


def _batches(tokens: Tensor, sequence: int, settings: Settings, seed: int) -> Iterator:
    # Drawn on the CPU, so that every device and every recipe sees the same batches.
    generator = torch.Generator().manual_seed(seed)
    while True:
        last = len(tokens) - sequence
        starts = torch.randint(last, (settings.batch,), generator=generator)
        yield windows(tokens, starts, sequence)


def _set_learning_rate(optimizer, settings: Settings, step: int) -> None:
    warm = min(1.0, step / max(1, settings.warmup_steps))
    decaying = max(1, settings.steps - settings.warmup_steps)
    done = max(0, step - settings.warmup_steps) / decaying
    cosine = (1 + math.cos(math.pi * done)) / 2
    share = settings.final_rate + (1 - settings.final_rate) * cosine
    for group in optimizer.param_groups:
        group["lr"] = settings.learning_rate * warm * share


def _autocast(recipe: Recipe, device: str):
    dtype = getattr(torch, recipe.compute) if recipe.compute else None
    return torch.autocast(device, dtype=dtype, enabled=dtype is not None)


@contextlib.contextmanager
def _tf32(enabled: bool):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if enabled else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _clock(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _reset_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _note_peak(run: Run, device: str) -> None:
    if device == "cuda":
        run.peak_allocated_bytes = torch.cuda.max_memory_allocated()
        run.peak_reserved_bytes = torch.cuda.max_memory_reserved()


def _note_step(run: Run, step: int, seconds: float, loss: float) -> None:
    run.seconds.append(round(seconds, 6))
    if math.isfinite(loss):
        run.losses.append(float(f"{loss:.7g}"))  # a float32 holds no more digits
    else:
        run.losses.append(None)
        run.non_finite_step = step


def _note_scale(run: Run, step: int, scaler, scale: float) -> None:
    if not scaler.is_enabled():
        return
    if not run.loss_scale or run.loss_scale[-1][1] != scale:
        run.loss_scale.append((step, scale))
    # A lowered scale is the only sign torch's scaler gives of a step it skipped.
    if scaler.get_scale() < scale:
        run.skipped_steps.append(step)


def _note_results(
    run: Run, model: nn.Module, held_out: Tensor, recipe: Recipe, settings: Settings
) -> None:
    run.final_loss = statistics.fmean(run.losses[-20:])
    found = evaluate(model, held_out, recipe, settings)
    run.validation_loss, run.forward_tokens_per_second = found
    run.tokens_per_second = _throughput(run, settings, model.config.sequence)


def _throughput(run: Run, settings: Settings, sequence: int) -> float | None:
    timed = [
        seconds
        for step, seconds in enumerate(run.seconds, start=1)
        if step > WARM_UP_STEPS and not settings.is_sampled(step)
    ]
    if not timed:
        return None
    return settings.batch * sequence / statistics.median(timed)

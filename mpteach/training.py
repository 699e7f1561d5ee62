"""One training run: a loop with no branch for precision, which returns a record of itself."""

import contextlib
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from mpteach.checkpoints import Checkpoint
from mpteach.data import Batches, Corpus, windows
from mpteach.meters import Meter, clock, gradient_shares, throughput
from mpteach.recipes import Recipe
from mpteach.runs import Run, Settings


def train(
    model: nn.Module,
    corpus: Corpus,
    recipe: Recipe,
    settings: Settings,
    seed: int,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    checkpoint: Checkpoint = Checkpoint(),
    make_optimizer: Callable[..., Optimizer] | None = None,
    make_scaler: Callable[..., Any] = torch.amp.GradScaler,
) -> Run:
    """Train a GPT in place, where it lies, on batches drawn by `seed`; return the Run.

    `on_step(step, loss)` is called after every step. Where `checkpoint` has a file, the
    run goes on from it. `make_optimizer(model, settings)` and `make_scaler(device,
    enabled=...)` may put others in place of the recipe's own.
    """
    run, device = Run(recipe.name, seed), next(model.parameters()).device.type
    learning, held_out = corpus.split(device, model.config.sequence)
    recipe.prepare(model)
    optimizer = (make_optimizer or recipe.make_optimizer)(model, settings)
    scaler = make_scaler(device, enabled=recipe.scale_loss)
    batches = Batches(learning, model.config.sequence, settings.batch, seed)
    kept = run, model, optimizer, scaler, batches.generator
    checkpoint.restore(*kept)
    model.compile_parts(settings.compiled)
    loss_of, meter = loss_function(settings), Meter(device)
    with _tf32(recipe.tf32):
        for step in range(len(run.losses) + 1, settings.steps + 1):
            start, scale = clock(device), scaler.get_scale()
            for group in optimizer.param_groups:
                group["lr"] = settings.rate(step)
            tokens, targets = batches.draw()
            with _autocast(recipe, device):
                loss = loss_of(model(tokens), targets, recipe.loss)
            scaler.scale(loss).backward()
            if settings.is_sampled(step):
                run.gradients.append({"step": step, **gradient_shares(model, scale)})
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            run.note_step(clock(device) - start, loss.item(), settings.patience)
            if scaler.is_enabled():
                run.note_scale(step, scale, scaler.get_scale())
            on_step(step, loss.item())
            if run.non_finite_step:
                break
            if checkpoint.is_due(step):
                meter.note(run)
                checkpoint.keep(*kept)
        meter.note(run)
        if not run.non_finite_step:
            run.note_end(*evaluate(model, held_out, recipe, settings))
            run.tokens_per_second = throughput(run, settings, model.config.sequence)
    return run


def cross_entropy(logits: Tensor, targets: Tensor, dtype=None) -> Tensor:
    """Mean cross entropy of logits [B, T, V] and targets [B, T], in nats a token.

    It is taken in `dtype`, or the logits' own; compiled, it makes no copy of them.
    """
    return F.cross_entropy(logits.flatten(0, 1).to(dtype), targets.flatten())


@torch.no_grad()
def evaluate(
    model: nn.Module, tokens: Tensor, recipe: Recipe, settings: Settings
) -> tuple[float, float]:
    """Return mean loss and tokens per second of the forward pass over the held-out `tokens`.

    The windows are evenly spaced, the products the recipe's, the loss float32: a bfloat16
    loss is too coarse to compare. The speed is the median batch's.
    """
    device, sequence = tokens.device.type, model.config.sequence
    count = settings.validation_batches * settings.batch
    starts = torch.linspace(0, len(tokens) - sequence - 1, count).long()
    losses, seconds, loss_of = [], [], loss_function(settings)
    with _tf32(recipe.tf32):
        for part in starts.split(settings.batch):
            inputs, targets = windows(tokens, part, sequence)
            start = clock(device)
            with _autocast(recipe, device):
                logits = model(inputs)
            seconds.append(clock(device) - start)
            losses.append(loss_of(logits, targets, torch.float32).item())
    speed = settings.batch * sequence / statistics.median(seconds)
    return statistics.fmean(losses), speed


def loss_function(settings: Settings) -> Callable[..., Tensor]:
    """Return `cross_entropy`, compiled where the settings compile."""
    by = settings.compiled and torch.compile(cross_entropy, dynamic=False)
    return by or cross_entropy


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

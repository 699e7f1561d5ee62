"""One training run: a loop with no branch for precision, which returns a record of itself."""

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from mpteach import compiling, hardware
from mpteach.checkpoints import Checkpoint
from mpteach.data import Batches, Corpus, windows
from mpteach.gpt import GPT
from mpteach.meters import Meter, clock, gradient_shares, throughput
from mpteach.recipes import Recipe
from mpteach.runs import Run, Settings


class Trainer:
    """A GPT, where it lies, with all that a step of it takes under `recipe`."""

    def __init__(
        self,
        model: GPT,
        recipe: Recipe,
        settings: Settings,
        make_optimizer: Callable[..., Optimizer] | None = None,
        make_scaler: Callable[..., Any] = torch.amp.GradScaler,
    ) -> None:
        self.model, self.recipe = model, recipe
        self.device = model.positions.weight.device.type
        recipe.prepare(model)
        self.optimizer = (make_optimizer or recipe.make_optimizer)(model, settings)
        self.scaler = make_scaler(self.device, enabled=recipe.scale_loss)
        if settings.compiled:
            compiling.allow_many_precisions()
        parts = {"blocks": [*model.blocks, model.head], "whole": [model]}
        for one in parts.get(settings.compiled, ()):
            one.compile(dynamic=False)
        by = settings.compiled and torch.compile(cross_entropy, dynamic=False)
        self.loss_of = by or cross_entropy

    def learn(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Do the forward and the backward pass; return the loss."""
        with self.recipe.autocast(self.device):
            loss = self.loss_of(self.model(tokens), targets, self.recipe.loss)
        self.scaler.scale(loss).backward()
        return loss.detach()

    def update(self, learning_rate: float) -> None:
        """Do the optimizer's step, unless the scaler skips it, and drop the gradients."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def evaluate(self, held_out: Tensor, settings: Settings) -> tuple[float, float]:
        """Return the mean loss on `held_out`, and tokens per second of the forward pass.

        The windows are evenly spaced, the loss is float32: a bfloat16 one is too coarse
        to compare. The speed is the median batch's.
        """
        sequence = self.model.config.sequence
        count = settings.validation_batches * settings.batch
        starts = torch.linspace(0, len(held_out) - sequence - 1, count).long()
        losses, seconds = [], []
        for part in starts.split(settings.batch):
            inputs, targets = windows(held_out, part, sequence)
            start = clock(self.device)
            with self.recipe.autocast(self.device):
                logits = self.model(inputs)
            seconds.append(clock(self.device) - start)
            losses.append(self.loss_of(logits, targets, torch.float32).item())
        speed = settings.batch * sequence / statistics.median(seconds)
        return statistics.fmean(losses), speed


def train(
    model: GPT,
    corpus: Corpus,
    recipe: Recipe,
    settings: Settings,
    seed: int,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    checkpoint: Checkpoint = Checkpoint(),
    **makers: Callable[..., Any],
) -> Run:
    """Train `model` in place on batches drawn by `seed`; return the Run.

    `on_step(step, loss)` is called after every step. Where `checkpoint` has a file, the
    run goes on from it. `makers` may put others in place of the recipe's own:
    `make_optimizer(model, settings)` and `make_scaler(device, enabled=...)`.
    """
    trainer, run = Trainer(model, recipe, settings, **makers), Run(recipe.name, seed)
    device, scaler, sequence = trainer.device, trainer.scaler, model.config.sequence
    learning, held_out = corpus.split(device, sequence)
    batches = Batches(learning, sequence, settings.batch, seed)
    kept = run, model, trainer.optimizer, scaler, batches.generator
    checkpoint.restore(*kept)
    meter = Meter(device)
    with hardware.tf32(recipe.tf32):
        for step in range(len(run.losses) + 1, settings.steps + 1):
            start, scale = clock(device), scaler.get_scale()
            loss = trainer.learn(*batches.draw())
            if settings.is_sampled(step):
                run.gradients.append({"step": step, **gradient_shares(model, scale)})
            trainer.update(settings.rate(step))
            run.note_step(clock(device) - start, loss.item(), settings.patience)
            run.note_scale(step, scale, scaler)
            on_step(step, loss.item())
            if run.non_finite_step:
                break
            if checkpoint.is_due(step):
                meter.note(run)
                checkpoint.keep(*kept)
        meter.note(run)
        if not run.non_finite_step:
            run.note_end(*trainer.evaluate(held_out, settings))
            run.tokens_per_second = throughput(run, settings, sequence)
    return run


def cross_entropy(
    logits: Tensor, targets: Tensor, dtype: torch.dtype | None = None
) -> Tensor:
    """Mean cross entropy of logits [B, T, V] and targets [B, T], in nats a token.

    It is taken in `dtype`, or the logits' own; compiled, without a copy of them.
    """
    rows = logits.flatten(0, 1).to(dtype)
    return torch.nn.functional.cross_entropy(rows, targets.flatten())

"""Attention whose logits grow: written out as in textbooks, and as torch fuses it.

The product of queries and keys, before its division by sqrt(H/A), is the largest number
of a step. Written out it is a tensor in the dtype of the products; the fused kernel
keeps it in float32. Dehghani et al. 2023 (arXiv 2302.05442) saw attention logits grow
until training diverged. Letters in the shapes as in `gpt`.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpteach import debugging, formats, gpt, recipes, training
from mpteach.data import Corpus
from mpteach.inputs import require_one_of
from mpteach.runs import Settings

FORMS = ("written", "scaled-first", "fused")
# The factor on the first block's query and key weights at the start: logits grow by its
# square. In the model "25M" they pass float16's largest number with the first, and stay
# below it with the second. One block, or gradients would explode from block to block.
LARGE, SMALL = 128, 32
# Variant: recipe (None: the exact one of the device), form and factor.
VARIANTS: dict[str, tuple[str | None, str, int]] = {
    "exact-written": (None, "written", LARGE),
    "bf16-written": ("bf16", "written", LARGE),
    "bf16-fused": ("bf16", "fused", LARGE),
    "fp16-written": ("fp16", "written", LARGE),
    "fp16-written-small": ("fp16", "written", SMALL),
    "fp16-scaled-first": ("fp16", "scaled-first", LARGE),
    "fp16-fused": ("fp16", "fused", LARGE),
}
# Losses in a row that may be non-finite: long enough to see what the loss scale does.
PATIENCE = 40
EVERY = 10  # steps from one look to the next, after the first


def attention(q: Tensor, k: Tensor, v: Tensor, form: str) -> Tensor:
    """Causal attention of q, k, v [B, A, T, H/A]: a tensor of that shape.

    "written": softmax((q @ k^T) / sqrt(H/A)) @ v, each a tensor in the dtype of the
    products. "scaled-first": the same, with q divided first. "fused": torch's.
    """
    require_one_of("form", form, FORMS)
    if form == "fused":
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    root = math.sqrt(q.shape[-1])
    logits = (q / root) @ k.mT if form == "scaled-first" else q @ k.mT / root
    future = torch.ones_like(logits[0, 0], dtype=torch.bool).triu(1)  # [T, T]
    weights = logits.masked_fill(future, -math.inf).softmax(-1)  # [B, A, T, T]
    return weights.to(v.dtype) @ v


class Block(gpt.Block):
    """A `gpt.Block` with one of the FORMS of attention, which calls `look(q, k)` first."""

    form = "fused"
    look: Callable[[Tensor, Tensor], None] | None = None

    def attend(self, x: Tensor) -> Tensor:
        """Causal attention of [B, T, H] over itself."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # [B, T, 3, A, H/A]
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [B, A, T, H/A]
        if self.look:
            self.look(q, k)
        y = attention(q, k, v, self.form)
        return self.project(y.transpose(1, 2).flatten(2))


class Observer:
    """Looks at the logits of chosen steps, and for what made the first non-finite loss.

    Give it a GPT, of which it makes the blocks `Block`s. Call `stepped` after each step.
    `seen` lists dicts: step (from 1), and for each block `before` and `after`, the
    largest |logit| before and after the division, in float32, None where it is not
    finite, and `beyond`, the share of those before that float16 cannot hold. Logits that
    the mask takes away are left out. `first` is the step of the first non-finite loss and what
    `debugging.first_nonfinite` says of its forward pass.
    """

    def __init__(
        self, model: gpt.GPT, form: str, settings: Settings, compute: str | None
    ) -> None:
        self.seen: list[dict[str, Any]] = []
        self.first: dict[str, Any] | None = None
        self._model, self._settings, self._compute = model, settings, compute
        self._step, self._tokens, self._looking = 1, torch.empty(0), False
        model.register_forward_pre_hook(self._begin)
        for block in model.blocks:
            block.__class__ = Block
            block.form, block.look = form, self._look

    def stepped(self, step: int, loss: float) -> None:
        """Take note that `step` is done; look where its loss is the first non-finite."""
        self._step = 0  # what runs now is no training step
        if not math.isfinite(loss) and self.first is None:
            self.first = {"step": step, **self._why()}
        self._step = step + 1

    def _begin(self, model: nn.Module, inputs: tuple[Tensor]) -> None:
        chosen = self._step and self._settings.is_sampled(self._step)
        self._looking = bool(chosen) and torch.is_grad_enabled()
        if torch.is_grad_enabled():
            self._tokens = inputs[0]
        if self._looking:
            lists = {"before": [], "after": [], "beyond": []}
            self.seen.append({"step": self._step, **lists})

    @torch.no_grad()
    def _look(self, q: Tensor, k: Tensor) -> None:
        if not self._looking:
            return
        with torch.autocast(q.device.type, enabled=False):
            sizes = (q.float() @ k.float().mT).tril().abs()  # [B, A, T, T]
        largest = sizes.max().item()
        length = q.shape[-2]
        count = sizes.numel() * (length + 1) / (2 * length)
        beyond = (sizes > formats.get("float16").max).sum().item() / count
        last = self.seen[-1]
        last["before"].append(_number(largest))
        last["after"].append(_number(largest / math.sqrt(q.shape[-1])))
        last["beyond"].append(_number(beyond))

    def _why(self) -> dict[str, Any]:
        dtype = getattr(torch, self._compute) if self._compute else None
        kind = self._tokens.device.type
        with torch.autocast(kind, dtype=dtype, enabled=dtype is not None):
            report = debugging.first_nonfinite(self._model, self._tokens)
        if report is None:
            return {"phase": ""}
        told = {key: getattr(report, key) for key in ("phase", "module", "operation")}
        ranges = {"inputs": report.inputs, "outputs": report.outputs}
        spans = {key: [str(one) for one in held] for key, held in ranges.items()}
        return {**told, "kind": report.kind, **spans}


def grow(model: gpt.GPT, factor: float) -> None:
    """Multiply the query and key weights of the first block of `model`, in place."""
    with torch.no_grad():
        model.blocks[0].qkv.weight[: 2 * model.config.hidden].mul_(factor)


def variants(device: str) -> list[str]:
    """Return the names of the runs of one seed."""
    return list(VARIANTS)


def one_run(
    variant: str,
    seed: int,
    model: gpt.GPT,
    corpus: Corpus,
    settings: Settings,
    on_step: Callable[[int, float], None],
) -> dict[str, Any]:
    """Train `model` as the variant says; return the Run, and what was `seen`, as a dict.

    `seen` has the `logits` and the `first` of an Observer, and the `factor` of the
    weights at the start. A run ends after PATIENCE losses in a row that are not finite,
    and is looked at EVERY so many steps.
    """
    name, form, factor = VARIANTS[variant]
    device = next(model.parameters()).device.type
    exact = "tf32" if not recipes.unavailable(recipes.get("tf32"), device) else "fp32"
    recipe = recipes.get(name or exact)
    patient = replace(settings, patience=PATIENCE, gradient_every=EVERY)
    grow(model, factor)
    observer = Observer(model, form, patient, recipe.compute)

    def stepped(step: int, loss: float) -> None:
        observer.stepped(step, loss)
        on_step(step, loss)

    done = training.train(model, corpus, recipe, patient, seed, stepped)
    seen = {"factor": factor, "logits": observer.seen, "first": observer.first}
    return {**asdict(replace(done, seconds=[])), "seen": seen}


def _number(x: float) -> float | None:
    return float(f"{x:.5g}") if math.isfinite(x) else None

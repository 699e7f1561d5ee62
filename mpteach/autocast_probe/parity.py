"""Is our autocast torch's, bit for bit? The comparison for tests and for a record."""

import contextlib
import weakref
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mpteach.autocast import autocast
from mpteach.autocast_probe import (
    HALVES,
    REFUSALS,
    dtype_name,
    mixtures,
    require_runnable,
)
from mpteach.autocast_probe.operations import OPERATIONS, SEED, Operation
from mpteach.gpt import GPT, GPTConfig
from mpteach.training import cross_entropy

# Small, since a CPU without float16 instructions multiplies them slowly.
SHAPE = GPTConfig(layers=2, heads=2, hidden=32, sequence=16, vocabulary=64)
# A kernel may itself call operations that have a policy. torch's autocast, which is no
# mode, goes on inside; ours ends where a kernel begins. On a CPU `bilinear`'s calls `bmm`;
# on CUDA `trace`'s calls `sum`.
OUT_OF_REACH = {"cpu": {"F.bilinear(a, b, c)"}, "cuda": {"torch.trace(a)"}}


def autocast_parity(device_type: str) -> dict:
    """Return how our autocast and torch's compare on `device_type`: plain data.

    "operations": how many were tried, "cases": each with every mixture of inputs, in
    both 16-bit dtypes. "unequal": the cases that differ in a dtype, a bit, a gradient
    or a refusal, with what differs; "unrepeatable": those among them in which torch
    differs from itself. "models": loss and gradients of a small GPT. "casts":
    `count_casts`, by dtype.
    Raises InputError for a device that has no policy or is not there.
    """
    require_runnable(device_type, HALVES[0])
    unequal = [row for dtype in HALVES for row in unequal_cases(device_type, dtype)]
    return {
        "device": device_type,
        "operations": len(OPERATIONS),
        "cases": sum(len(mixtures(o, dtype)) for o in OPERATIONS for dtype in HALVES),
        "unequal": [row for row in unequal if row["repeatable"]],
        "unrepeatable": [row for row in unequal if not row["repeatable"]],
        "models": {dtype_name(d): model_parity(device_type, d) for d in HALVES},
        "casts": {dtype_name(d): count_casts(device_type, d) for d in HALVES},
    }


def unequal_cases(device_type: str, dtype: torch.dtype) -> list[dict]:
    """Return the cases in which ours differs from torch: call, inputs, dtype, what."""
    found = []
    for operation in OPERATIONS:
        for inputs in mixtures(operation, dtype):

            def under(region: Callable) -> list[Tensor] | str:
                values = operation.inputs(inputs, device_type)
                return outcome(operation, values, region(device_type, dtype))

            torchs = under(torch.autocast)
            if what := difference(under(autocast), torchs):
                case = {"call": operation.call, "dtype": dtype_name(dtype)}
                case["inputs"] = [dtype_name(one) for one in inputs]
                case["repeatable"] = not difference(under(torch.autocast), torchs)
                found.append({**case, "what": what})
    return found


def outcome(
    operation: Operation,
    inputs: list[Tensor],
    region: contextlib.AbstractContextManager,
) -> list[Tensor] | str:
    """Return results and gradients of one call within `region`, or "refused"."""
    try:
        with region:
            results = list(operation.run(inputs))
    except REFUSALS:
        return "refused"
    learnt = [x for x in results if x.requires_grad]
    if not learnt:
        return results
    ones = [torch.ones_like(x) for x in learnt]
    return results + list(torch.autograd.grad(learnt, inputs, ones, allow_unused=True))


def difference(ours: list[Tensor] | str, torchs: list[Tensor] | str) -> str:
    """Return what differs between two outcomes, or ""."""
    if isinstance(ours, str) or isinstance(torchs, str):
        same = isinstance(ours, str) and isinstance(torchs, str)
        return "" if same else "one refuses"
    for own, other in zip(ours, torchs, strict=True):
        if own is None or other is None:
            if own is not other:
                return "a gradient is missing"
        elif own.dtype != other.dtype:
            return f"{dtype_name(own.dtype)}, torch {dtype_name(other.dtype)}"
        elif not same_bits(own, other):
            return "bits"
    return ""


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors of one dtype hold the same bits; any NaN equals any NaN.

    So zero and minus zero differ. The bits of a NaN are not defined, and are not
    compared.
    """
    if first.is_complex():
        first, second = torch.view_as_real(first), torch.view_as_real(second)
    if not first.is_floating_point():
        return torch.equal(first, second)
    nan, other_nan = first.isnan(), second.isnan()
    if first.shape != second.shape or not torch.equal(nan, other_nan):
        return False
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[first.element_size()]
    bits = [x.detach().masked_fill(nan, 0).view(integer) for x in (first, second)]
    return torch.equal(*bits)


def small_gpt(device_type: str) -> tuple[GPT, Tensor, Tensor]:
    """Return a small float32 GPT, tokens [B, T] and targets [B, T], always the same."""
    torch.manual_seed(SEED)
    model = GPT(SHAPE)
    text = torch.randint(SHAPE.vocabulary, (4, SHAPE.sequence + 1))
    model, text = model.to(device_type), text.to(device_type)
    return model, text[:, :-1], text[:, 1:]


def model_parity(device_type: str, dtype: torch.dtype) -> dict:
    """Compare one forward and backward pass of the small GPT: loss and gradients."""
    regions = (autocast, torch.autocast)
    ours, torchs = (
        _learn(region(device_type, dtype), device_type) for region in regions
    )
    equal = [o.dtype == t.dtype and same_bits(o, t) for o, t in zip(ours, torchs)]
    return {
        "loss": ours[0].item(),
        "loss_equal": equal[0],
        "gradients": len(equal) - 1,
        "gradients_equal": sum(equal[1:]),
        "gradient_dtypes": sorted({dtype_name(x.dtype) for x in ours[1:]}),
    }


def _learn(region, device_type: str) -> list[Tensor]:
    model, tokens, targets = small_gpt(device_type)
    with region:
        loss = cross_entropy(model(tokens), targets)
    loss.backward()
    return [loss.detach(), *(parameter.grad for parameter in model.parameters())]


def count_casts(device_type: str, dtype: torch.dtype, passes: int = 2) -> dict:
    """Count the casts in `passes` forward passes of the small GPT in one region.

    Returns {"cached": ..., "uncached": ...}; each has "ours" and "torch", and each of
    these the casts of "weights" and of "all" tensors.
    """
    regions = {"ours": autocast, "torch": torch.autocast}
    return {
        name: {
            who: _casts_in(region(device_type, dtype, True, cache), device_type, passes)
            for who, region in regions.items()
        }
        for name, cache in (("cached", True), ("uncached", False))
    }


def _casts_in(region, device_type: str, passes: int) -> dict[str, int]:
    model, tokens, _ = small_gpt(device_type)
    with Casts() as casts, region:
        for _ in range(passes):
            model(tokens)
    weights = {id(parameter) for parameter in model.parameters()}
    of_weights = sum(id(source) in weights for source, _ in casts.made)
    return {"weights": of_weights, "all": len(casts.made)}


class Casts(TorchDispatchMode):
    """Collects each cast to a 16-bit dtype in `made`: the tensor and its copy.

    Enter it outside the autocast region: what it sees has passed autocast and autograd.
    """

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and result.dtype in HALVES:
            self.made.append((args[0], result))
        return result


def copies_alive(
    region: contextlib.AbstractContextManager, device_type: str
) -> dict[str, int]:
    """Return the bytes of 16-bit weight copies that autograd holds, at three moments.

    "in_region", "after_region" and "after_backward" of one step of the small GPT. A
    hook on saved tensors finds them: those that share the memory of a weight's cast.
    """
    model, tokens, targets = small_gpt(device_type)
    weights = {id(parameter) for parameter in model.parameters()}
    saved = []

    def note(tensor: Tensor) -> Tensor:
        saved.append((weakref.ref(tensor), _memory(tensor), tensor.nbytes))
        return tensor

    with Casts() as casts, torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        with region:
            loss = cross_entropy(model(tokens), targets)
            copies = {_memory(copy) for of, copy in casts.made if id(of) in weights}
            alive = {"in_region": _alive(saved, copies)}
    casts.made.clear()  # what this function holds itself is not to be counted
    alive["after_region"] = _alive(saved, copies)
    loss.backward()
    return {**alive, "after_backward": _alive(saved, copies)}


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _alive(saved: list[tuple], copies: set[int]) -> int:
    kept = {at: size for ref, at, size in saved if ref() is not None and at in copies}
    return sum(kept.values())

"""What a trace cannot follow, in one sentence each."""

import re
from typing import Any

from torch import nn
from torch._subclasses import fake_tensor

from mpteach.errors import require

_NEEDS_DATA = (
    fake_tensor.DynamicOutputShapeException,
    fake_tensor.DataDependentOutputException,
)
_CALLED = {
    "aten.nonzero.default": " (nonzero, or an index of bools)",
    "aten._local_scalar_dense.default": " (item, or a tensor as a number or a condition)",
    "aten.masked_select.default": " (masked_select)",
    "aten._unique2.default": " (unique)",
}
_INSIDE = "create tensors inside make_model, and name no device there"
# A pattern of what torch says, and what it means here.
_SAYINGS = {
    r"[Cc]uda|CUDA|two (different )?devices": (
        "the model names a device, and a trace has but one: take .cuda(), .to(...) and "
        "device=... out, or measure on a GPU."
    ),
    r"\.item\(\) cannot be called on meta": (
        "make_model asks for the data of a tensor by item, and a trace has none: use "
        "Python's numbers there."
    ),
    r"[Cc]annot copy out of meta tensor": (
        f"make_model moves the model to a device: {_INSIDE}."
    ),
    r"convert all Tensors to FakeTensors": (
        "the step uses a tensor that is no parameter, buffer or part of the batch: "
        "register it as a buffer of the model."
    ),
    r"uninitialized parameter": (
        "the model has a lazy module, whose shape is not known before it runs: give "
        "its sizes."
    ),
    r"\.numpy\(\) is not supported": (
        "the step asks for the data of a tensor by numpy(), and a trace has none: take "
        "it out of the step, or measure on a GPU."
    ),
    r"SparseTensorImpl": (
        "the step makes a sparse tensor, which a trace cannot follow: use dense ones, "
        "e.g. sparse=False."
    ),
}


def refusal(error: Exception) -> str | None:
    """Return what `error`, raised in a trace, means; None for an error of the model."""
    if isinstance(error, _NEEDS_DATA):
        name = str(error.func)
        return (
            f"the step asks for the data of a tensor by {name}{_CALLED.get(name, '')}, "
            "and a trace has none: take it out of the step, or measure on a GPU."
        )
    for pattern, sentence in _SAYINGS.items():
        if re.search(pattern, str(error)):
            return sentence
    return None


def require_plain(model: Any) -> None:
    """Raise InputError for a model that is compiled, or whose tensors have data."""
    for name, module in model.named_modules():
        kind = type(module).__name__
        compiled = kind == "OptimizedModule" or module._compiled_call_impl is not None
        compiled |= hasattr(module, "inlined_graph")  # of torch.jit
        require(
            not compiled,
            f"{name or 'the model'} is compiled, and a trace follows each operation: "
            "give the module itself.",
        )
    for name, one in (*model.named_parameters(), *model.named_buffers()):
        require(
            isinstance(one, nn.parameter.UninitializedTensorMixin) or one.is_meta,
            f"{name} of the model lies on {one.device} already: {_INSIDE}.",
        )

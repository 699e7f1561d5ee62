"""What autocast does to each operation, found by running it.

Every operation of `operations` is run under `torch.autocast` on float32 inputs, on
16-bit inputs, and on a mixture. The rows are plain data, for a table or a record.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mpteach import hardware
from mpteach.autocast import policy
from mpteach.autocast_probe.operations import OPERATIONS, Operation
from mpteach.errors import InputError
from mpteach.inputs import shown

HALVES = (torch.bfloat16, torch.float16)
REFUSALS = (RuntimeError, ValueError)


def probe(
    device_type: str,
    dtype: torch.dtype,
    operations: Sequence[Operation] = tuple(OPERATIONS),
) -> list[dict]:
    """Return a row for each operation and each mixture of input dtypes.

    A row has "family", "call", "inputs" (dtype names), "output" (dtype names under
    `torch.autocast`), "refused" (torch's sentence, or ""), "plain" (dtype names without
    autocast; none where it is refused) and "kernels", what ran below autograd.
    Raises InputError for a device that is not there and for another dtype.
    """
    require_runnable(device_type, dtype)
    return [
        _row(operation, inputs, device_type, dtype)
        for operation in operations
        for inputs in mixtures(operation, dtype)
    ]


def require_runnable(device_type: str, dtype: torch.dtype) -> None:
    """Raise InputError unless autocast can be run to `dtype` on this machine's device."""
    policy.require_device(device_type)
    problem = hardware.cuda_problem() if device_type == "cuda" else ""
    if problem:
        raise InputError(f"device 'cuda' cannot be used ({problem}): take 'cpu'.")
    if dtype not in HALVES:
        raise InputError(f"dtype was {shown(dtype)}: give torch.float16 or bfloat16.")


def mixtures(operation: Operation, dtype: torch.dtype) -> list[list[torch.dtype]]:
    """Return the input dtypes to try: float32, `dtype`, and `dtype` before float32."""
    count, full = len(operation.sizes), torch.float32
    mixed = [[dtype] + [full] * (count - 1)] if count > 1 else []
    return [[full] * count, [dtype] * count, *mixed]


def treatments(rows: Sequence[dict]) -> dict[str, str]:
    """Return in a word what autocast does to each call of a probe's `rows`.

    "16-bit": float32 goes in, the chosen dtype comes out. "16-bit inside": float32 goes
    in and comes out, a kernel between them is 16-bit. "float32": 16-bit goes in,
    float32 comes out. "widest": autocast makes mixed inputs one dtype. "refused". "as
    given": none of it.
    """
    calls: dict[str, list[dict]] = {}
    for row in rows:
        calls.setdefault(row["call"], []).append(row)
    return {call: _treatment(*own) for call, own in calls.items()}


def _treatment(full: dict, half: dict, *mixed: dict) -> str:
    if full["refused"] and full["plain"]:
        return "refused"
    if full["output"] != full["plain"]:
        return "16-bit"
    if any("float16" in kernel for kernel in full["kernels"]):
        return "16-bit inside"
    if half["output"] != half["plain"]:
        return "float32"
    return "widest" if any(r["output"] != r["plain"] for r in mixed) else "as given"


def _row(operation: Operation, dtypes, device_type: str, dtype: torch.dtype) -> dict:
    plain, _ = _outcome(operation, operation.inputs(dtypes, device_type))
    inputs = operation.inputs(dtypes, device_type)
    with torch.autocast(device_type, dtype):
        output, refused = _outcome(operation, inputs)
    # Apart, since under a mode autocast ends where a kernel begins.
    inputs = operation.inputs(dtypes, device_type)
    with _Kernels() as kernels, torch.autocast(device_type, dtype):
        _outcome(operation, inputs)
    return {
        "family": operation.family,
        "call": operation.call,
        "inputs": [dtype_name(one) for one in dtypes],
        "output": output,
        "refused": refused,
        "plain": plain,
        "kernels": kernels.ran,
    }


def _outcome(operation: Operation, inputs: Sequence[Tensor]) -> tuple[list[str], str]:
    try:
        found = operation.run(inputs)
    except REFUSALS as error:
        return [], str(error).partition("\n")[0]
    return [dtype_name(tensor.dtype) for tensor in found], ""


def dtype_name(dtype: torch.dtype) -> str:
    """Return "float32" for torch.float32."""
    return str(dtype).removeprefix("torch.")


class _Kernels(TorchDispatchMode):
    """Notes what runs below autograd but casts and views: "mm(bfloat16, bfloat16)"."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        leaves = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        dtypes = [dtype_name(x.dtype) for x in leaves if x.is_floating_point()]
        unseen = func.is_view or func is torch.ops.aten._to_copy.default
        if dtypes and not unseen:
            self.ran.append(f"{func.overloadpacket.__name__}({', '.join(dtypes)})")
        return func(*args, **(kwargs or {}))

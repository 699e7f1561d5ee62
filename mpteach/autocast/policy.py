"""The policy of torch's autocast, read off the installed torch: probed, not copied.

Which operations autocast treats is asked of the dispatcher. What it does to each is
seen by calling the operation on stand-ins: tensors without data that note how the call
arrives after autocast. So the policy for CUDA can be read where there is no GPU.
The names of the policies are torch's own: aten/src/ATen/autocast_mode.h, `CastPolicy`.
"""

import contextlib
import functools
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils import _python_dispatch
from torch.utils._pytree import tree_leaves

from mpteach.errors import InputError

# What `torch.autocast` casts to where no dtype is given.
DEFAULT_DTYPES = {"cpu": torch.bfloat16, "cuda": torch.float16}
MEANING = {
    "lower_precision_fp": "inputs are cast to the chosen 16-bit dtype",
    "fp32": "inputs are cast to float32",
    "fp32_set_opt_dtype": "inputs stay; the result is float32 unless a dtype is asked",
    "fp32_append_dtype": "inputs stay; the overload with dtype=float32 is called",
    "promote": "inputs are cast to the widest among them",
    "banned": "refused: unsafe to autocast",
    "special": "a kernel of its own, which a stand-in cannot follow",
}


def require_device(device_type: str) -> None:
    """Raise InputError unless `device_type` is one whose policy this module reads."""
    if not isinstance(device_type, str) or device_type not in DEFAULT_DTYPES:
        names = " or ".join(DEFAULT_DTYPES)
        raise InputError(f"device_type was {device_type!r}: give {names}.")


def read(device_type: str) -> dict[str, str]:
    """Return the policy for each operation that autocast treats on `device_type`.

    Keys are names with overload ("aten::sum.dim_IntList"), in order; values are keys of
    MEANING. An operation that is not there runs in the dtypes it is given.
    Raises InputError for a device type other than "cpu" and "cuda".
    """
    require_device(device_type)
    return _read(_stand_ins.get(device_type, device_type))


_stand_ins: dict[str, str] = {}


@contextlib.contextmanager
def standing_in(device_type: str, other: str) -> Iterator[None]:
    """Treat tensors on `device_type` by the policy of `other`, to plan for a device."""
    before = dict(_stand_ins)
    _stand_ins[device_type] = other
    try:
        yield
    finally:
        _stand_ins.clear()
        _stand_ins.update(before)


@functools.cache
def _read(device_type: str) -> dict[str, str]:
    key = f"Autocast{device_type.upper()}"
    names = torch._C._dispatch_get_registrations_for_dispatch_key(key)
    with _python_dispatch._disable_current_modes(), past_autograd(True):
        with _torch_casts(device_type):
            return {name: _policy_of(name, device_type) for name in sorted(names)}


@contextlib.contextmanager
def past_autograd(yes: bool) -> Iterator[None]:
    """Pass autograd by, or not, on the way from a call to a dispatch mode.

    Autograd takes composite operations apart: past it they arrive as they were called.
    """
    autograd = torch._C.DispatchKey.AutogradFunctionality
    views = torch._C.DispatchKey.ADInplaceOrView  # its bookkeeping of views
    with torch._C._SetExcludeDispatchKeyGuard(autograd, yes):
        with torch._C._SetExcludeDispatchKeyGuard(views, yes):
            yield


def is_composite(func: torch._ops.OpOverload, devices: set[str]) -> bool:
    """Whether on `devices` `func` is made of other operations, which autocast sees too.

    Some that could be have a kernel of their own on a device, e.g. silu_backward.
    """
    if func.namespace == "prim":  # asks a tensor subclass for its device; no operation
        return False
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    own = [name.upper() for name in devices & DEFAULT_DTYPES.keys()]
    return has_kernel(func.name(), "CompositeImplicitAutograd") and not any(
        has_kernel(func.name(), key) for key in own
    )


@contextlib.contextmanager
def _torch_casts(device_type: str) -> Iterator[None]:
    # Not torch.autocast, which turns itself off where there is no such device.
    before = torch.is_autocast_enabled(device_type)
    torch.set_autocast_enabled(device_type, True)
    try:
        yield
    finally:
        torch.set_autocast_enabled(device_type, before)


class _Arrived(Exception):
    """Carries a call as it is after autocast: operation, leaves of its arguments."""


class _StandIn(Tensor):
    """A tensor of one element and no data that can be cast and stops all else."""

    @staticmethod
    def __new__(cls, dtype: torch.dtype, device_type: str) -> "_StandIn":
        make = Tensor._make_wrapper_subclass
        return make(cls, (1,), dtype=dtype, device=device_type)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.to.dtype:
            return cls(args[1], args[0].device.type)
        raise _Arrived(func, tree_leaves((args, kwargs)))


def _policy_of(name: str, device_type: str) -> str:
    half, full = torch.get_autocast_dtype(device_type), torch.float32
    func = overload(name)
    try:
        if _arrival(func, full, full, device_type)[1] == {half}:
            return "lower_precision_fp"
        arrived, dtypes, has_dtype = _arrival(func, half, half, device_type)
        mixed = _arrival(func, half, full, device_type)[1]
    except RuntimeError as error:
        return "banned" if "unsafe to autocast" in str(error) else "special"
    if has_dtype:
        return "fp32_set_opt_dtype" if arrived is func else "fp32_append_dtype"
    if dtypes == {full}:
        return "fp32"
    return "promote" if dtypes == {half} and mixed == {full} else "special"


def overload(name: str) -> torch._ops.OpOverload:
    """Return the operation of that name, as in "aten::sum.dim_IntList"."""
    library, _, rest = name.partition("::")
    packet, _, which = rest.partition(".")
    return getattr(getattr(getattr(torch.ops, library), packet), which or "default")


def _arrival(func, first: torch.dtype, others: torch.dtype, device_type: str) -> tuple:
    """Call `func` on stand-ins; return what arrives, its dtypes, is a dtype asked."""
    dtypes, args, kwargs = iter((first,)), [], {}

    def stand_in() -> _StandIn:
        return _StandIn(next(dtypes, others), device_type)

    for argument in func._schema.arguments:
        if not argument.has_default_value():
            value = _made_up(str(argument.type), stand_in)
            if argument.kwarg_only:
                kwargs[argument.name] = value
            else:
                args.append(value)
    try:
        func(*args, **kwargs)
    except _Arrived as call:
        arrived, leaves = call.args
        if arrived.overloadpacket is func.overloadpacket:
            tensors = {leaf.dtype for leaf in leaves if isinstance(leaf, Tensor)}
            return arrived, tensors, any(isinstance(x, torch.dtype) for x in leaves)
    raise RuntimeError(f"{func.name()} did not arrive.")


def _made_up(kind: str, stand_in):
    """Return any value of the schema's type `kind`: autocast looks at tensors alone."""
    if kind == "Tensor":
        return stand_in()
    if kind in ("List[Tensor]", "List[Optional[Tensor]]"):
        return [stand_in(), stand_in()]
    if kind.startswith("List["):
        return [1]
    plain = {"int": 1, "number": 1.0, "float": 1.0, "bool": False, "str": ""}
    return plain.get(kind)

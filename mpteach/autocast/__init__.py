"""Autocast of our own: what `torch.autocast` does, in a dispatch mode that can be read.

torch's autocast is a layer of the dispatcher above autograd. It sees each operation as
it was called, casts its tensors, and autograd records the casts like anything else: so
the gradient of a float32 weight is float32. A dispatch mode sits below autograd. Ours
is lifted: calls pass autograd by, and what the mode then calls goes through it.
Sources: aten/src/ATen/autocast_mode.h and .cpp, torch/amp/autocast_mode.py.
"""

import contextlib
import threading

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from mpteach.autocast import policy
from mpteach.errors import InputError


class _Thread(threading.local):
    """What autocast keeps for a thread; `cache` maps id(weight) to it and its cast."""

    def __init__(self) -> None:
        self.dtypes, self.enabled = dict(policy.DEFAULT_DTYPES), frozenset()
        self.cache_enabled, self.cache = True, {}
        self.depth, self.mode = 0, contextlib.ExitStack()


_here = _Thread()


class autocast(contextlib.ContextDecorator):
    """Run each operation in the dtype that `torch.autocast` would choose.

    A context manager or decorator, to be nested and entered again. `device_type`: "cpu"
    or "cuda". `dtype`: float16 or bfloat16; None is the enclosing region's, at first
    torch's default. `enabled=False` switches it off inside. `cache_enabled`: cast each
    float32 weight once in the outermost region, not at each use; None is as outside.
    Unlike torch's it ends where a kernel begins, and is to be opened inside of what
    torch.utils.checkpoint runs again. Raises InputError for other values.
    """

    def __init__(
        self,
        device_type: str,
        dtype: torch.dtype | None = None,
        enabled: bool = True,
        cache_enabled: bool | None = None,
    ) -> None:
        policy.require_device(device_type)
        dtype = _here.dtypes[device_type] if dtype is None else dtype
        if dtype not in (torch.float16, torch.bfloat16):
            raise InputError(
                f"dtype was {dtype}: give torch.float16 or torch.bfloat16."
            )
        cache_enabled = _here.cache_enabled if cache_enabled is None else cache_enabled
        self.device_type, self.dtype, self.enabled = device_type, dtype, enabled
        self.cache_enabled, self._outside = cache_enabled, []

    def __enter__(self) -> "autocast":
        """Switch the region's settings on, and the mode itself in the outermost."""
        self._outside.append((_here.dtypes, _here.enabled, _here.cache_enabled))
        if _here.depth == 0:
            _here.mode.enter_context(_Casting())
            _here.mode.enter_context(policy.past_autograd(True))
        _here.depth += 1
        _here.dtypes = {**_here.dtypes, self.device_type: self.dtype}
        others = _here.enabled - {self.device_type}
        _here.enabled = others | {self.device_type} if self.enabled else others
        _here.cache_enabled = self.cache_enabled
        return self

    def __exit__(self, *error) -> None:
        """Restore the settings of outside; the outermost region empties the cache."""
        _here.dtypes, _here.enabled, _here.cache_enabled = self._outside.pop()
        _here.depth -= 1
        if _here.depth == 0:
            _here.cache.clear()
            _here.mode.close()


class _Casting(TorchDispatchMode):
    """Sees every operation as it was called, and casts before autograd records it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, leaves = kwargs or {}, tree_leaves((args, kwargs))
        present = {leaf.device.type for leaf in leaves if isinstance(leaf, Tensor)}
        for device in sorted(present & _here.enabled):
            if rule := policy.read(device).get(func.name()):
                with policy.past_autograd(False):
                    return _run(rule, device, func, args, kwargs)
        if policy.is_composite(func, present):
            with self:  # it is made of operations that may have a rule
                composite = torch._C.DispatchKey.CompositeImplicitAutograd
                return func._op_dk(composite, *args, **kwargs)
        with policy.past_autograd(False):
            return func(*args, **kwargs)


def _run(rule: str, device: str, func, args, kwargs):
    if rule in ("banned", "special"):
        raise InputError(f"{func.name()} under autocast: {policy.MEANING[rule]}.")
    if rule == "fp32_append_dtype":
        named = {"Scalar": "ScalarOpt_dtype", "ScalarOpt_dim": "ScalarOpt_dim_dtype"}
        defaults = [a.default_value for a in func._schema.arguments[len(args) :]]
        dtype = torch.float32 if _eligible(args[0], device) else args[0].dtype
        func = getattr(func.overloadpacket, named[func._overloadname])
        return func(*args, *defaults, dtype=dtype)
    if rule == "fp32_set_opt_dtype":
        asked = any(isinstance(x, torch.dtype) for x in (*args, *kwargs.values()))
        free = _eligible(args[0], device) and not asked
        return func(*args, **kwargs, **({"dtype": torch.float32} if free else {}))
    to = torch.float32 if rule == "fp32" else _here.dtypes[device]
    if rule == "promote":
        leaves = tree_leaves((args, kwargs))
        to = _widest(to, [x for x in leaves if _eligible(x, device)])
    args, kwargs = tree_map(lambda x: _cast(x, to, device), (args, kwargs))
    return func(*args, **kwargs)


def _eligible(x, device: str) -> bool:
    if not isinstance(x, Tensor) or x.device.type != device:
        return False
    return x.is_floating_point() and x.dtype != torch.float64


def _widest(lower: torch.dtype, tensors: list[Tensor]) -> torch.dtype:
    widest = lower
    for dtype in (tensor.dtype for tensor in tensors):
        if torch.float32 in (dtype, widest):
            widest = torch.float32
        elif dtype != lower:
            raise InputError(f"an input was {dtype}: give torch.float32 or {lower}.")
    return widest


def _cast(x, to: torch.dtype, device: str):
    if not _eligible(x, device) or x.dtype == to:
        return x
    is_weight = x.is_leaf and x.requires_grad and not x._is_view()
    lowers = x.dtype == torch.float32 and to == _here.dtypes[device]
    cached = _here.cache_enabled and not torch.is_inference_mode_enabled()
    if not (cached and is_weight and lowers):
        return x.to(to)
    if id(x) not in _here.cache:
        with torch.enable_grad():  # a later use may need a gradient
            _here.cache[id(x)] = x, x.to(to)
    return _here.cache[id(x)][1]

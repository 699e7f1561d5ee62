"""Which dtype each tensor of a training step has: read off a running step of a recipe.

The keys of `dtypes` are those of `figures.weights.BOXES`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mpteach import gpt, recipes
from mpteach.runs import Settings
from mpteach.training import Trainer

CONFIG = gpt.GPTConfig(layers=1, heads=2, hidden=32, sequence=8, vocabulary=64)
OUT, IN = SHAPE = (3 * CONFIG.hidden, CONFIG.hidden)  # of the matrix that is followed
RATE = 1e-3
SUM = ("lerp", "lerp_")  # how Adam takes a gradient into its mean


@dataclass(frozen=True)
class Flow:
    """One matrix of a model through a training step under `recipe`.

    `dtypes` are those of its tensors in the order of a step, as torch names them.
    `held` are the ones that live from step to step. `sizes` maps each kind of tensor to
    its bytes a parameter and its dtype; a kind that ends in "*" lives for a part of the
    step. `scale` is what the loss was multiplied by.
    """

    recipe: str
    dtypes: Mapping[str, str]
    held: frozenset[str]
    sizes: Mapping[str, tuple[float, str]]
    scale: float

    @property
    def state_bytes(self) -> float:
        """Bytes a parameter of all that is there just before the optimizer's step."""
        return sum(size for kind, (size, _) in self.sizes.items() if kind[-1] != "*")


@cache
def observe(name: str) -> Flow:
    """Train two steps of a small GPT under the recipe `name` on the CPU; return its Flow.

    Raises InputError for an unknown recipe. tf32 and the fp8 recipes need a GPU to mean
    what they say.
    """
    torch.manual_seed(0)
    trainer = Trainer(gpt.GPT(CONFIG), recipes.get(name), Settings())
    text = torch.randint(CONFIG.vocabulary, (2, CONFIG.sequence + 1))
    weight = trainer.model.blocks[0].qkv.weight
    for _ in range(2):  # the second step meets the optimizer's state
        scale = trainer.scaler.get_scale()
        with _Log() as passes:
            loss = trainer.learn(text[:, :-1], text[:, 1:])
        gradient = weight.grad
        with _Log() as step:
            trainer.update(RATE)
    state = trainer.optimizer.state[weight]
    dtypes = {
        **_of_passes(passes.rows),
        "kept": _name(state.get("master", weight)),
        "loss": _name(loss),
        "gradient": _name(gradient),
        "moments": _name(state["exp_avg"]),
        "read": _read(step.rows),
    }
    is_copy = dtypes["used"] != _name(weight)
    held = {"kept", "moments"} | (set() if is_copy else {"used"})
    sizes = _sizes(weight, gradient, state)
    if is_copy:
        sizes["copy*"] = getattr(torch, dtypes["used"]).itemsize, dtypes["used"]
    return Flow(name, dtypes, frozenset(held), sizes, scale)


def _sizes(
    weight: torch.Tensor, gradient: torch.Tensor, state: dict[str, torch.Tensor]
) -> dict[str, tuple[float, str]]:
    tensors = {"weights": weight, "gradients": gradient}
    tensors |= {"masters": state["master"]} if "master" in state else {}
    tensors |= {"m": state["exp_avg"], "v": state["exp_avg_sq"]}
    count = weight.numel()
    return {kind: (one.nbytes / count, _name(one)) for kind, one in tensors.items()}


class _Log(TorchDispatchMode):
    """Writes down each operation: its name, and shape and dtype of result and inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[str, list[tuple[tuple[int, ...], str]]]] = []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        result = op(*args, **(kwargs or {}))
        leaves = tree_leaves((result, args))
        tensors = [one for one in leaves if isinstance(one, torch.Tensor)]
        described = [(tuple(one.shape), _name(one)) for one in tensors]
        self.rows.append((op.overloadpacket.__name__, described))
        return result


def _of_passes(rows: list) -> dict[str, str]:
    """Return the dtypes at the two products: with the matrix, and for its gradient."""
    for name, tensors in rows:
        if name in ("mm", "addmm") and tensors[-1][0] == (IN, OUT):
            forward = tensors
        if name == "mm" and tensors[0][0] in (SHAPE, SHAPE[::-1]):
            backward = tensors
    return {
        "used": forward[-1][1],
        "activation": forward[0][1],
        "activation gradient": backward[1][1],
        "product gradient": backward[0][1],
    }


def _read(rows: list) -> str:
    """Return the dtype of the gradient that Adam adds to its mean."""
    taken = (
        tensors[2][1]
        for name, tensors in rows
        if name in SUM and tensors[0][0] == SHAPE
    )
    return next(taken)


def _name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")

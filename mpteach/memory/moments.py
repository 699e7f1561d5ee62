"""The moments of a training step at which memory may be fullest, and what they hold.

From block to block memory only grows or only shrinks, so the last and the first block
stand for all. An operation of the backward pass makes the gradients of its inputs while
what it saved, and the gradient of its output, are still there.
"""

from collections.abc import Iterator
from typing import NamedTuple

from mpteach.memory.equations import Item, Step, present
from mpteach.memory.reductions import BYTES_A_PART

GRADIENTS = Item("gradients", "gradients", "w P")


class Plan(NamedTuple):
    """What is alive at a moment, and why that may be the most."""

    name: str
    phase: str
    why: str
    items: list[Item]


def plans(step: Step) -> Iterator[Plan]:
    """Yield the moments of `step` in their order."""
    blocks = [item._replace(equation=f"l {item.equation}") for item in step.kept()]
    saved = [*step.embedding(), *blocks, *step.head()]
    unread = [item for item in saved if item.group != "logits"]
    before = step.always() + _summed(step)
    yield Plan(
        "the loss",
        "forward",
        "every activation is there, and the logits beside their log-probabilities",
        before + saved + _loss(step),
    )
    yield Plan(
        "the gradient of the loss",
        "backward",
        "every activation is still there, and the gradients of the logits come on top",
        before + saved + _gradient_of_loss(step),
    )
    for name, made in _gradients_of_head(step):
        yield Plan(
            name,
            "backward",
            "the activations of all blocks are there, and the head's gradient on top",
            before + unread + made,
        )
    yield from _blocks(step)
    yield Plan(
        "the gradient of the embedding",
        "backward",
        "all gradients are there, and the embedding's comes on top",
        before + _undropped(step.embedding()) + _gradient_of_embedding(step),
    )
    copied = ", and foreach works on a copy of every parameter" * _copies(step)
    yield Plan(
        "the step of the optimizer",
        "step",
        f"weights, gradients and optimizer state are all there{copied}",
        step.always() + _step(step),
    )


def _blocks(step: Step) -> Iterator[Plan]:
    """Yield the backward passes of the last block and of the first."""
    head = Item("gradient of the head", "gradients", "w V h")
    waits = [head] if step.shape.tied or not step.accumulates else []
    norm = Item("gradient of the last norm", "gradients", f"{step.vectors_of_norm} w h")
    waits += [] if step.accumulates else [norm]
    base = step.always() + _summed(step) + step.embedding() + waits
    attention = step.attention()
    below = Item("blocks below", "residual stream", "(l - 1) B")
    above = Item("gradients of blocks above", "gradients", "w (l - 1) Q")
    others = {"last": [below], "first": [] if step.accumulates else [above]}
    for place, other in others.items():
        for name, made in _gradients_of_mlp(step):
            yield Plan(
                f"{name} of the {place} block",
                "backward",
                "all that the block keeps is there, and its first gradients come on top",
                base + other + attention + made,
            )
        if step.shape.biases:
            yield Plan(
                f"the first product of the MLP of the {place} block",
                "backward",
                "all that attention keeps is there, and the sum for a bias on top",
                base + other + attention + _gradient_of_expansion(step),
            )
        if step.materialised:
            yield Plan(
                f"the attention of the {place} block",
                "backward",
                "all its scores are there, and their gradients come on top",
                base + other + _gradient_of_scores(step),
            )
    yield Plan(
        "the queries, keys and values of the first block",
        "backward",
        "nearly all gradients are there, and the block's last ones come on top",
        base + _gradient_of_norm(step),
    )


def _summed(step: Step) -> list[Item]:
    """Return the gradients that the micro-batches before have left."""
    return [GRADIENTS] if step.accumulates else []


def _undropped(items: list[Item]) -> list[Item]:
    """Leave out dropout masks, which are read first and are free from then on."""
    return [item for item in items if item.group != "dropout"]


def _loss(step: Step) -> list[Item]:
    """Within autocast, all casts are kept for a second use."""
    casts = _of_casts(step.attention() + step.mlp())
    biased = step.casts and step.shape.biases
    return present(
        ("logits", "temporaries", "c n V", True),
        ("casts of biases", "weight casts", f"c {step.biases}", biased),
        *((*item, step.checkpointing) for item in casts),
    )


def _of_casts(block: list[Item]) -> list[Item]:
    casts = [item for item in block if item.group == "weight casts"]
    return [item._replace(equation=f"l {item.equation}") for item in casts]


def _gradient_of_loss(step: Step) -> list[Item]:
    static = step.recipe.weights == "float16"  # the loss, scaled by a constant
    scalars = 4 * step.casts + 16 * step.recipe.scales_loss + 2 * static
    return present(
        ("gradients of the logits", "loss temporaries", "2 c n V", not step.casts),
        ("gradients of the logits", "loss temporaries", "4 n V", step.casts),
        ("scalars at the loss", "loss temporaries", _plus("w", scalars), True),
    )


def _gradients_of_head(step: Step) -> Iterator[tuple[str, list[Item]]]:
    """Yield what the head makes, and then what widening its 16-bit gradient does.

    By then the cast of the weights and the product's input are free, and as large as the
    16-bit gradients of both, which are there. So it is in `_gradients_of_mlp`.
    """
    yield (
        "the gradient of the head",
        [
            Item("gradient of the logits", "temporaries", "c n V"),
            Item("gradient of the head's input", "temporaries", "c n h"),
            Item("gradient of the head", "temporaries", "c V h"),
        ],
    )
    if step.casts:
        wide = Item("gradient of the head in float32", "temporaries", "w V h")
        yield "the gradient of the head, widened", [wide]


def _gradients_of_mlp(step: Step) -> Iterator[tuple[str, list[Item]]]:
    """Yield what is there when the last product makes its gradients, when they have been
    widened, when its bias's is summed, and when SwiGLU's gate makes its own.
    """
    kept = _undropped(step.mlp())
    stream = ("gradient of the residual stream", "temporaries", "w n h", True)
    weights = ("gradient of the last weights", "temporaries", "c h m")
    apart = step.casts or step.drops
    made = present(
        stream,
        ("its cast, or what dropout leaves", "temporaries", "c n h", apart),
        ("gradient of the last input", "temporaries", "c n m", True),
        (*weights, True),
    )
    sums = _partial_sums(step, "h e")
    if step.checkpointing:
        yield "the MLP", kept + made
        yield "the last bias", _unread(kept) + made + sums
    else:
        yield "the MLP", kept + made + sums
    if step.casts:
        wide = ("gradient of the last weights in float32", "temporaries", "w h m", True)
        yield "the widened MLP", kept + present(stream, wide)
    if step.shape.mlp == "swiglu":
        halves = ("gradients of gate and gated", "temporaries", "2 c n m", True)
        first = (*weights, not step.accumulates)
        yield "the gate", kept + present(stream, halves, first)


def _unread(kept: list[Item]) -> list[Item]:
    """Leave out what a checkpoint has given to the last product, which gave it up."""
    read = ("input of the MLP's last product", "casts of the MLP")
    return [item for item in kept if item.name not in read]


def _gradient_of_expansion(step: Step) -> list[Item]:
    """Return what is there when the first product of the MLP sums its bias's gradient."""
    gone = ["activation function"] + ["linear inputs"] * step.checkpointing
    kept = [item for item in _unread(step.mlp()) if item.group not in gone]
    halves = "2 " if step.shape.mlp == "swiglu" else ""
    weights, twice = f"{halves}c h m", f"{halves}c n m"
    cast = step.casts and not step.checkpointing  # which gives it up after the product
    made = present(
        ("cast of the first weights", "weight casts", weights, cast),
        ("gradient of the last weights", "gradients", "w h m", not step.accumulates),
        ("gradient of the residual stream", "temporaries", "w n h", True),
        ("gradient of the first product", "temporaries", twice, True),
        ("gradient of the MLP's input", "temporaries", "c n h", True),
        ("gradient of the first weights", "temporaries", weights, True),
    )
    return _undropped(kept) + made + _partial_sums(step, f"{halves}m f")


def _partial_sums(step: Step, equation: str) -> list[Item]:
    """Return the buffer in which a kernel sums the gradient of a bias."""
    name, sums = "partial sums of a bias's gradient", f"{BYTES_A_PART} {equation}"
    return present((name, "temporaries", sums, step.shape.biases))


def _gradient_of_norm(step: Step) -> list[Item]:
    """Return what is there when a block has come to its queries, keys and values."""
    first = ("residual stream", "linear inputs", "norms")
    kept = [item for item in step.attention() if item.group in first]
    products, weights = "c n (2 h + 2 u)", "c h (h + 2 u)"
    gradients = present(
        ("gradients of blocks", "gradients", "w l Q", not step.accumulates),
        ("gradient of the residual stream", "temporaries", "w n h", True),
        ("gradients of q, k, v and their input", "temporaries", products, True),
        ("16-bit gradient of their weights", "temporaries", weights, step.casts),
    )
    return kept + gradients + _partial_sums(step, "(h + 2 u) k")


def _gradient_of_scores(step: Step) -> list[Item]:
    """Return what is there when the softmax makes its input's gradients."""
    read = ("attention's output", "dropout mask of scores", "scores as multiplied")
    gone = (*read, "casts of q, k, v and projection")
    kept = [item for item in step.attention() if item.name not in gone]
    qkv = f"(h + {int(step.shape.biases)}) (h + 2 u) + {step.vectors_of_norm} h"
    made = f"w (Q - ({qkv}))"
    first, views = not step.accumulates, step.batch == 1 and not step.grouped
    return _undropped(kept) + present(
        ("casts of q, k, v", "weight casts", "c h (h + 2 u)", step.casts),
        ("gradients of MLP and projection", "gradients", made, first),
        ("gradient of the residual stream", "temporaries", "w n h", True),
        ("gradient of the values beside their view", "temporaries", "c n h", views),
        ("gradients of scores", "temporaries", "2 w b a s^2", True),
        ("product inside the softmax's kernel", "temporaries", "w b a s^2", True),
    )


def _gradient_of_embedding(step: Step) -> list[Item]:
    """The head's part of a tied gradient waits. Where autocast did not copy it, it is a
    view, and autograd does not add to it in place (torch/csrc/autograd/input_buffer.cpp).
    """
    tied, again = step.shape.tied, step.accumulates
    summed = tied and not step.casts  # by then the stream's gradient is free
    return present(
        (*GRADIENTS, not again),
        ("gradient of the head", "gradients", "w V h", tied and again),
        ("gradient of the embedding", "temporaries", "w V h", tied or again),
        ("sum of the two", "temporaries", "w V h", summed),
        ("gradient of the residual stream", "temporaries", "w n h", not summed),
    )


def _copies(step: Step) -> bool:
    """Whether the optimizer makes a temporary of the size of all parameters."""
    return step.optimizer in ("adam-foreach", "adamw-foreach")


def _step(step: Step) -> list[Item]:
    scalars = 12 * step.recipe.scales_loss
    return present(
        (*GRADIENTS, True),
        ("gradients of masters", "step temporaries", "4 P", step.recipe.masters),
        ("square roots of moments", "step temporaries", "o P", _copies(step)),
        ("scalars at the step", "step temporaries", _plus("2 w", scalars), True),
    )


def _plus(equation: str, number: int) -> str:
    return f"{equation} + {number}" if number else equation

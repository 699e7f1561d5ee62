"""The work of a training step of a decoder: its matrix products, one by one.

A product [m, k] @ [k, n] -> [m, n] multiplies and adds for each of m k n pairs: 2 m k n
FLOP. In the backward pass each product has two of the same size, one for the gradient of
either factor. Sources: Korthikanti et al. 2022 (arXiv 2205.05198), appendix A; Dao et al.
2022 (arXiv 2205.14135) for attention that computes its scores again.
"""

from dataclasses import dataclass

from mpteach.errors import require
from mpteach.inputs import require_one_of, shown
from mpteach.memory.shapes import Shape, require_count

ATTENTIONS = ("sdpa", "materialised")


@dataclass(frozen=True)
class Product:
    """`count` products [m, k] @ [k, n] in a forward pass.

    `again`: how often as many are done in the backward pass.
    """

    name: str
    count: int
    m: int
    k: int
    n: int
    again: int = 2

    @property
    def forward(self) -> int:
        """FLOP of the forward pass."""
        return 2 * self.count * self.m * self.k * self.n

    @property
    def backward(self) -> int:
        """FLOP of the backward pass."""
        return self.again * self.forward

    def moved(self, size: int) -> int:
        """Return the bytes that the forward products read and write, `size` a number."""
        m, k, n = self.m, self.k, self.n
        return size * self.count * (m * k + k * n + m * n)


def flops(
    shape: Shape,
    batch: int,
    sequence: int,
    attention: str = "sdpa",
    checkpointing: bool = False,
) -> tuple[Product, ...]:
    """Return all products of one training step of a `decoder.Decoder`.

    They are what torch's FlopCounterMode counts: attention in full, though half of its
    scores are masked, and nothing but products. "sdpa", fused attention, computes the
    scores a second time in the backward pass; with `checkpointing` a block runs a second
    time, up to the input of its last product. Raises InputError for sizes that are not
    whole numbers from 1 on.
    """
    require(isinstance(shape, Shape), f"shape was {shown(shape)}: give a Shape.")
    require_count("batch", batch)
    require_count("sequence", sequence)
    require_one_of("attention", attention, ATTENTIONS)
    x, tokens = shape, batch * sequence
    width = x.hidden // x.heads
    keys = width * (x.kv_heads or x.heads)
    inner = x.mlp_hidden or 4 * x.hidden
    first = inner * (2 if x.mlp == "swiglu" else 1)  # SwiGLU: the gate and what it gates
    pairs, again = x.layers * batch * x.heads, 2 + checkpointing
    scores = again + (attention == "sdpa")
    return (
        Product("q, k, v", x.layers, tokens, x.hidden, x.hidden + 2 * keys, again),
        Product("scores", pairs, sequence, width, sequence, scores),
        Product("weighted values", pairs, sequence, sequence, width, again),
        Product("projection", x.layers, tokens, x.hidden, x.hidden, again),
        Product("MLP, first", x.layers, tokens, x.hidden, first, again),
        Product("MLP, last", x.layers, tokens, inner, x.hidden),
        Product("head", 1, tokens, x.hidden, x.vocabulary),
    )


def total(products: tuple[Product, ...]) -> int:
    """Return the FLOP of forward and backward pass together."""
    return sum(one.forward + one.backward for one in products)

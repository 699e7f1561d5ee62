"""Which tensors a training step holds, and when: one equation each.

What an operation saves for its backward pass: torch's derivatives.yaml; what autocast
casts: ATen's autocast_mode.h; what optimizers make: torch/optim; how attention lays out
its output: flash_api.cpp and attention.cu (all of torch 2.11).
Korthikanti et al. 2022 (arXiv 2205.05198) count in the same way; Dettmers et al. 2022
(arXiv 2110.02861) describe Adam's state in 8 bits.
"""

from dataclasses import dataclass
from typing import NamedTuple

from mpteach.memory.recipes import Recipe
from mpteach.memory.reductions import parts
from mpteach.memory.shapes import Shape

SYMBOLS = {
    "l": "layers",
    "a": "heads",
    "h": "hidden width",
    "d": "width of a head, h / a",
    "u": "width of all keys, h x kv_heads / heads",
    "m": "width inside the MLP",
    "V": "vocabulary",
    "g": "micro-batches",
    "b": "sequences in a micro-batch",
    "s": "sequence",
    "z": "s rounded up to a multiple of 32",
    "n": "tokens in a micro-batch, b s",
    "w": "bytes of a weight, and of an element of the residual stream",
    "c": "bytes of an element that a matrix product reads",
    "o": "bytes of an element of the optimizer's state",
    "P": "parameters",
    "Q": "parameters of one block",
    "B": "bytes that one block keeps for the backward pass",
    "e": "blocks that share the sum of a column, for the gradient of a bias of h numbers",
    "f": "the same for the bias of the MLP's first product",
    "k": "the same for the bias of queries, keys and values",
    "t": "tensors among the parameters",
    "q": "blocks of 2048 parameters",
}


class Item(NamedTuple):
    """A tensor, or several alike: its name, its group, and its bytes as an equation."""

    name: str
    group: str
    equation: str


@dataclass(frozen=True)
class Step:
    """The step whose bytes are counted: `batch` is that of one micro-batch."""

    shape: Shape
    recipe: Recipe
    optimizer: str
    batch: int
    sequence: int
    micro_batches: int
    materialised: bool
    drops: bool
    checkpointing: bool
    workspace: int

    @property
    def casts(self) -> bool:
        """Whether autocast makes 16-bit copies."""
        return self.recipe.compute is not None

    @property
    def rotary(self) -> bool:
        """Whether positions turn queries and keys, instead of having an embedding."""
        return self.shape.positions == "rotary"

    @property
    def grouped(self) -> bool:
        """Whether several heads share a key: it is repeated for each of them."""
        return self.shape.kv_heads not in (None, self.shape.heads)

    @property
    def accumulates(self) -> bool:
        """Whether a backward pass finds gradients and adds its own to them."""
        return self.micro_batches > 1

    @property
    def matrices_of_mlp(self) -> int:
        """SwiGLU has three, others have two."""
        return 3 if self.shape.mlp == "swiglu" else 2

    @property
    def vectors_of_norm(self) -> int:
        """LayerNorm has a weight and a bias, RMSNorm has a weight."""
        return 2 if self.shape.norm == "layernorm" else 1

    @property
    def biases(self) -> str:
        """How many parameters the biases of the blocks are."""
        inner = "m" if self.matrices_of_mlp == 2 else "2 m"
        return f"l (3 h + 2 u + {inner})" if self.shape.biases else "0"

    @property
    def bytes_of_weights(self) -> int:
        """Two or four."""
        return 4 if self.recipe.weights == "float32" else 2

    @property
    def bytes_of_products(self) -> int:
        """Two or four."""
        return 2 if self.casts else self.bytes_of_weights

    def sizes(self) -> dict[str, int]:
        """Return the symbols that are not sums of bytes."""
        x = self.shape
        tokens, width = self.batch * self.sequence, x.hidden // x.heads
        keys = width * (x.kv_heads or x.heads)
        norms, gated = self.vectors_of_norm, x.mlp == "swiglu"
        inner = x.mlp_hidden or 4 * x.hidden
        return {
            "l": x.layers,
            "a": x.heads,
            "h": x.hidden,
            "d": width,
            "u": keys,
            "m": inner,
            "V": x.vocabulary,
            "g": self.micro_batches,
            "b": self.batch,
            "s": self.sequence,
            "z": -(-self.sequence // 32) * 32,
            "n": tokens,
            "w": self.bytes_of_weights,
            "c": self.bytes_of_products,
            "e": parts(tokens, x.hidden),
            "f": parts(tokens, (1 + gated) * inner),
            "k": parts(tokens, x.hidden + 2 * keys),
            "o": 4 if self.recipe.masters else self.bytes_of_weights,
            "t": x.layers * (4 * (1 + x.biases) + 2 * norms)
            + (1 + (not self.rotary) + norms + (not x.tied)),
        }

    def parameters(self) -> list[Item]:
        """Return how many parameters (not bytes) the parts of the model have."""
        x, per_norm = self.shape, self.vectors_of_norm
        return present(
            ("token embedding", "", "V h", True),
            ("position embedding", "", "s h", not self.rotary),
            ("attention weights", "block", "l (2 h^2 + 2 h u)", True),
            ("MLP weights", "block", f"{self.matrices_of_mlp} l h m", True),
            ("biases", "block", self.biases, x.biases),
            ("norms of the blocks", "block", f"{2 * per_norm} l h", True),
            ("last norm", "", f"{per_norm} h", True),
            ("head", "", "V h", not x.tied),
        )

    def always(self) -> list[Item]:
        """Return what is alive all the time."""
        base, _, kernel = self.optimizer.partition("-")
        states = {"sgd": 0, "momentum": 1}.get(base, 2)
        counted = states == 2 and kernel == "fused"
        weights = [
            Item(part.name, "parameters", f"w {part.equation}")
            for part in self.parameters()
        ]
        return weights + present(
            ("attention masks", "parameters", "l s^2", self.materialised),
            ("rotary tables", "parameters", "w s d", self.rotary),
            ("float32 masters", "masters", "4 P", self.recipe.masters),
            ("moments", "optimizer", f"{states} o P", states > 0 and kernel),
            ("moments in 8 bits", "optimizer", "2 P + 8 q", not kernel),
            ("step counters", "optimizer", "4 t", counted),
            ("tokens and targets", "batch", "16 g n", True),
            ("cuBLAS workspace", "workspace", f"{self.workspace}", self.workspace > 0),
        )

    def embedding(self) -> list[Item]:
        """Return what the embeddings keep for the backward pass."""
        return present(
            ("numbers of the positions", "embeddings", "8 s", not self.rotary),
            ("dropout mask of the embeddings", "dropout", "n h", self.drops),
        )

    def attention(self) -> list[Item]:
        """Return what the attention of one block keeps, its norm included."""
        # SDPA keeps views of the product; other products copy them, unless b is 1.
        views = not self.materialised or self.batch == 1
        q_is_view = views and self.grouped and not self.rotary
        v_is_view = views and self.rotary and not self.grouped
        flash = not self.materialised and self.bytes_of_products == 2
        efficient = not self.materialised and self.bytes_of_products == 4
        copied = self.materialised and (self.casts or self.drops)
        masked = self.materialised and self.drops
        tables, turned = self.rotary and self.casts, self.rotary and flash
        weights = "c (2 h^2 + 2 h u)"
        # Flash attention lays its output out as the queries: turned, it must be copied.
        return present(
            ("residual stream into attention", "residual stream", "w n h", True),
            ("statistics of attention's norm", "norms", self._statistics, True),
            ("input of q, k, v", "linear inputs", "c n h", True),
            ("queries, keys, values", "attention", "3 c n h", True),
            ("what the view of queries keeps", "attention", "2 c n u", q_is_view),
            ("what the view of values keeps", "attention", "2 c n h", v_is_view),
            ("casts of rotary tables", "attention", "2 c s d", tables),
            ("attention's output", "attention", "c n h", True),
            ("its copy for the projection", "linear inputs", "c n h", turned),
            ("log-sum-exp", "attention", "4 n a", flash),
            ("log-sum-exp, padded", "attention", "4 b a z", efficient),
            ("seed and offset of dropout", "attention", "16", flash),
            ("softmax of scores", "attention", "w b a s^2", self.materialised),
            ("dropout mask of scores", "attention", "b a s^2", masked),
            ("scores as multiplied", "attention", "c b a s^2", copied),
            ("dropout mask of attention", "dropout", "n h", self.drops),
            ("casts of q, k, v and projection", "weight casts", weights, self.casts),
        )

    def mlp(self) -> list[Item]:
        """Return what the MLP of one block keeps, its norm included."""
        gated = self.shape.mlp == "swiglu"
        weights = f"{self.matrices_of_mlp} c h m"
        return present(
            ("residual stream into the MLP", "residual stream", "w n h", True),
            ("statistics of the MLP's norm", "norms", self._statistics, True),
            ("input of the MLP", "linear inputs", "c n h", True),
            ("input of GELU", "activation function", "c n m", not gated),
            ("gate, its SiLU, the gated", "activation function", "3 c n m", gated),
            ("input of the MLP's last product", "linear inputs", "c n m", True),
            ("dropout mask of the MLP", "dropout", "n h", self.drops),
            ("casts of the MLP", "weight casts", weights, self.casts),
        )

    def kept(self) -> list[Item]:
        """Return what one block keeps from its forward pass to its backward pass."""
        if self.checkpointing:
            return [Item("inputs of the blocks", "residual stream", "w n h")]
        return self.attention() + self.mlp()

    def head(self) -> list[Item]:
        """Return what the last norm, the head and the loss keep."""
        return present(
            ("residual stream into the last norm", "residual stream", "w n h", True),
            ("statistics of the last norm", "norms", self._statistics, True),
            ("input of the head", "linear inputs", "c n h", True),
            ("cast of the head", "weight casts", "c V h", self.casts),
            ("log-probabilities", "logits", "c n V", True),
            ("log-probabilities in float32", "logits", "4 n V", self.casts),
            ("loss and its weight", "loss", "2 w", True),
        )

    @property
    def _statistics(self) -> str:
        return f"{4 * self.vectors_of_norm} n"  # a mean and a scale, or a scale


def present(*rows: tuple[str, str, str, object]) -> list[Item]:
    """Return the items of those rows whose last entry is true."""
    return [Item(*item) for *item, there in rows if there]

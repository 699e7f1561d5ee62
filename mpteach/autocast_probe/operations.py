"""The operations that the probe runs: calls as one writes them, on small tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

SEED = 6


@dataclass(frozen=True)
class Operation:
    """One call, in Python, on tensors a, b, c ... of the given shapes.

    `call` is both the name in the table and what is run. It may also use `i`, the
    indices 2, 0, 1. `shapes` has one word a tensor: "3x4 4" is a [3, 4] matrix and a
    vector of 4.
    """

    family: str
    call: str
    shapes: str

    @property
    def sizes(self) -> list[list[int]]:
        """The shape of each tensor."""
        return [[int(n) for n in word.split("x")] for word in self.shapes.split()]

    def inputs(self, dtypes: Sequence[torch.dtype], device: str) -> list[Tensor]:
        """Return the tensors, one of each dtype: leaves that ask for a gradient.

        Values lie in (0.1, 0.9), where every operation is defined, and are the same on
        every device: float32 from a fixed seed, then rounded. A call with `out=` can
        have no gradient.
        """
        generator = torch.Generator().manual_seed(SEED)
        learns = "out=" not in self.call
        return [
            (0.1 + 0.8 * torch.rand(size, generator=generator))
            .to(device, dtype)
            .requires_grad_(learns)
            for size, dtype in zip(self.sizes, dtypes, strict=True)
        ]

    def run(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Make the call, random numbers seeded; return what it returned, as a tuple."""
        torch.manual_seed(SEED)
        indices = torch.tensor([2, 0, 1], device=inputs[0].device)
        names = {"torch": torch, "F": F, "i": indices, **dict(zip("abcdefg", inputs))}
        # The text is the table's own: what is shown can not differ from what is run.
        found = eval(self.call, names)
        return found if isinstance(found, tuple | list) else (found,)


# One line an operation: the call, two spaces, the shapes.
_TABLE = {
    "products": """
        a @ b  3x4 4x5
        torch.matmul(a, b)  2x3x4 4x5
        torch.mm(a, b)  3x4 4x5
        torch.mv(a, b)  3x4 4
        torch.bmm(a, b)  2x3x4 2x4x5
        torch.dot(a, b)  4 4
        torch.vdot(a, b)  4 4
        torch.outer(a, b)  3 4
        torch.addmm(a, b, c)  3x5 3x4 4x5
        torch.addmv(a, b, c)  3 3x4 4
        torch.addr(a, b, c)  3x4 3 4
        torch.baddbmm(a, b, c)  2x3x5 2x3x4 2x4x5
        torch.addbmm(a, b, c)  3x5 2x3x4 2x4x5
        torch.einsum('ij,jk->ik', a, b)  3x4 4x5
        torch.einsum('bij,bjk->ik', a, b)  2x3x4 2x4x5
        torch.tensordot(a, b, 1)  3x4 4x5
        torch.linalg.multi_dot([a, b, c])  3x4 4x5 5x3
        torch.linalg.vecdot(a, b)  3x4 3x4
        torch.kron(a, b)  2x3 3x2
    """,
    "layers": """
        F.linear(a, b)  3x4 5x4
        F.linear(a, b, c)  3x4 5x4 5
        F.bilinear(a, b, c)  3x4 3x5 2x4x5
        F.conv1d(a, b)  2x3x8 4x3x3
        F.conv2d(a, b, c)  2x3x6x6 4x3x3x3 4
        F.conv2d(a, b, padding='same')  2x3x6x6 4x3x3x3
        F.conv3d(a, b)  1x2x4x4x4 3x2x2x2x2
        F.conv_transpose1d(a, b)  2x3x8 3x4x3
        F.conv_transpose2d(a, b)  1x3x4x4 3x2x3x3
        F.embedding(i, a)  5x4
        F.scaled_dot_product_attention(a, b, c)  2x2x4x8 2x2x4x8 2x2x4x8
        F.prelu(a, b)  3x4 1
        torch.rnn_tanh_cell(a, b, c, d)  2x3 2x4 4x3 4x4
        torch.gru_cell(a, b, c, d)  2x3 2x4 12x3 12x4
        torch.lstm_cell(a, (b, c), d, e)  2x3 2x4 2x4 16x3 16x4
        F.dropout(a)  4x8
        F.max_pool2d(a, 2)  1x2x4x4
        F.avg_pool2d(a, 2)  1x2x4x4
        F.avg_pool3d(a, 2)  1x2x4x4x4
        F.interpolate(a, scale_factor=2)  1x2x4x4
        F.grid_sample(a, b, align_corners=False)  1x2x4x4 1x3x3x2
        F.pad(a, (1, 1), mode='reflect')  1x2x6
    """,
    "norms": """
        F.layer_norm(a, (4,))  3x4
        F.layer_norm(a, (4,), b, c)  3x4 4 4
        F.rms_norm(a, (4,))  3x4
        F.group_norm(a, 2)  2x4x3
        F.batch_norm(a, None, None, training=True)  4x3
        F.normalize(a)  3x4
        torch.norm(a)  3x4
        torch.linalg.vector_norm(a)  3x4
        torch.linalg.matrix_norm(a)  3x4
        torch.renorm(a, 2, 0, 1.0)  3x4
        torch.dist(a, b)  3x4 3x4
        torch.cdist(a, b)  3x4 5x4
        F.pairwise_distance(a, b)  3x4 3x4
        F.cosine_similarity(a, b)  3x4 3x4
    """,
    "activations": """
        F.relu(a)  3x4
        F.gelu(a)  3x4
        F.silu(a)  3x4
        torch.sigmoid(a)  3x4
        torch.tanh(a)  3x4
        F.softplus(a)  3x4
        F.softmax(a, -1)  3x4
        F.log_softmax(a, -1)  3x4
        F.softmax(a, -1, dtype=torch.float64)  3x4
        torch.logsumexp(a, -1)  3x4
    """,
    "pointwise": """
        a + b  3x4 3x4
        a * b  3x4 3x4
        a / b  3x4 3x4
        a * 2.0  3x4
        torch.exp(a)  3x4
        torch.expm1(a)  3x4
        torch.log(a)  3x4
        torch.log1p(a)  3x4
        torch.sqrt(a)  3x4
        torch.rsqrt(a)  3x4
        torch.reciprocal(a)  3x4
        torch.sin(a)  3x4
        torch.tan(a)  3x4
        torch.acos(a)  3x4
        torch.sinh(a)  3x4
        torch.erfinv(a)  3x4
        a ** 2  3x4
        a ** b  3x4 3x4
        2.0 ** a  3x4
        torch.atan2(a, b)  3x4 3x4
        torch.addcmul(a, b, c)  3x4 3x4 3x4
        torch.addcdiv(a, b, c)  3x4 3x4 3x4
        torch.where(a > 0.5, a, b)  3x4 3x4
        torch.lerp(a, b, 0.5)  3x4 3x4
        torch.linalg.cross(a, b)  4x3 4x3
        torch.cross(a, b, dim=-1)  4x3 4x3
    """,
    "reductions": """
        torch.sum(a)  3x4
        a.sum(-1)  3x4
        torch.sum(a, -1, dtype=torch.float64)  3x4
        torch.mean(a)  3x4
        torch.var(a)  3x4
        torch.prod(a)  3x4
        torch.cumsum(a, -1)  3x4
        torch.cumprod(a, -1)  3x4
        torch.amax(a)  3x4
        torch.trace(a)  4x4
        torch.quantile(a, 0.5)  3x4
        torch.linalg.inv(a)  3x3
    """,
    "losses": """
        F.cross_entropy(a, i)  3x4
        F.nll_loss(F.log_softmax(a, -1), i)  3x4
        F.nll_loss(a, i)  3x4
        F.mse_loss(a, b)  3x4 3x4
        F.l1_loss(a, b)  3x4 3x4
        F.smooth_l1_loss(a, b)  3x4 3x4
        F.huber_loss(a, b)  3x4 3x4
        F.kl_div(a, b, reduction='batchmean')  3x4 3x4
        F.binary_cross_entropy(a, b.detach())  3x4 3x4
        F.binary_cross_entropy_with_logits(a, b)  3x4 3x4
        F.soft_margin_loss(a, b.detach())  3x4 3x4
        F.margin_ranking_loss(a, b, c)  4 4 4
        F.cosine_embedding_loss(a, b, c)  3x4 3x4 3
        F.triplet_margin_loss(a, b, c)  3x4 3x4 3x4
        F.poisson_nll_loss(a, b)  3x4 3x4
        F.gaussian_nll_loss(a, b, c)  3x4 3x4 3x4
        F.multi_margin_loss(a, i)  3x4
    """,
    "joins and indices": """
        torch.cat([a, b])  3x4 2x4
        torch.stack([a, b])  3x4 3x4
        torch.index_put(a, (i,), b)  3x4 3x4
        torch.index_copy(a, 0, i, b)  3x4 3x4
        torch.index_add(a, 0, i, b)  3x4 3x4
        torch.scatter_add(a, 0, i[None], b)  3x3 1x3
        torch.scatter(a, 0, i[None], b)  3x3 1x3
        torch.index_select(a, 0, i)  3x4
        a[i]  3x4
        a.transpose(0, 1)  3x4
    """,
    "methods": """
        a.matmul(b)  3x4 4x5
        a.__matmul__(b)  3x4 4x5
        a.mm(b)  3x4 4x5
        a.exp()  3x4
        a.pow(2)  3x4
        a.softmax(-1)  3x4
        a.norm()  3x4
        torch.ops.aten.norm(a)  3x4
        torch.ops.aten.norm(a, 2, [0])  3x4
        a.to(torch.float64) @ b.to(torch.float64)  3x4 4x5
        a.float() @ b.float()  3x4 4x5
    """,
    "in place": """
        a.clone().addmm_(b, c)  3x5 3x4 4x5
        a.clone().add_(b)  3x4 3x4
        a.clone().mul_(b)  3x4 3x4
        a.clone().addcmul_(b, c)  3x4 3x4 3x4
        a.clone().exp_()  3x4
        a.clone().pow_(2)  3x4
        a.clone().cumsum_(-1)  3x4
        a.clone().index_put_((i,), b)  3x4 3x4
        a.clone().scatter_add_(0, i[None], b)  3x3 1x3
        F.relu(a.clone(), inplace=True)  3x4
    """,
    "out=": """
        torch.mm(a, b, out=c)  3x4 4x5 3x5
        torch.matmul(a, b, out=c)  3x4 4x5 3x5
        torch.addmm(a, b, c, out=d)  3x5 3x4 4x5 3x5
        torch.exp(a, out=b)  3x4 3x4
        torch.sum(a, -1, out=b)  3x4 3
        torch.cat([a, b], out=c)  3x4 2x4 5x4
    """,
}
OPERATIONS = [
    Operation(family, *line.strip().split("  "))
    for family, lines in _TABLE.items()
    for line in lines.strip().splitlines()
]

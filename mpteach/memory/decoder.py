"""The decoder that `formula` counts, as a module: to trace, and to measure.

It knows no precision. Letters in the shapes: B batch, T sequence, H hidden, A heads,
K heads of keys and values, D width of a head, V vocabulary.
Sources: Radford et al. 2019 (GPT-2); Su et al. 2021 (arXiv 2104.09864) for rotary
positions; Shazeer 2020 (arXiv 2002.05202) for SwiGLU; Ainslie et al. 2023 (arXiv
2305.13245) for grouped queries.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mpteach.inputs import require_one_of
from mpteach.memory.shapes import Shape

ATTENTIONS = ("sdpa", "materialised")


class Block(nn.Module):
    """Attention, then an MLP, each on a normalised copy of the residual stream."""

    def __init__(
        self, shape: Shape, sequence: int, attention: str, dropout: float
    ) -> None:
        super().__init__()
        hidden, self.heads, self.dropout = shape.hidden, shape.heads, dropout
        self.kv_heads = shape.kv_heads or shape.heads
        self.head = hidden // shape.heads
        inner = shape.mlp_hidden or 4 * hidden
        self.gated, self.fused = shape.mlp == "swiglu", attention == "sdpa"
        width = hidden + 2 * self.kv_heads * self.head
        self.attention_norm = make_norm(shape)
        self.qkv = nn.Linear(hidden, width, shape.biases)
        self.project = nn.Linear(hidden, hidden, shape.biases)
        self.mlp_norm = make_norm(shape)
        self.expand = nn.Linear(hidden, inner * (1 + self.gated), shape.biases)
        self.contract = nn.Linear(inner, hidden, shape.biases)
        if not self.fused:
            future = torch.ones(sequence, sequence, dtype=torch.bool).triu(1)
            self.register_buffer("future", future)

    def forward(self, x: Tensor, rotation: tuple[Tensor, ...]) -> Tensor:
        """Map the residual stream [B, T, H] to [B, T, H]."""
        x = x + self._drop(self.attend(self.attention_norm(x), rotation))
        y = self.expand(self.mlp_norm(x))
        if self.gated:
            gate, up = y.chunk(2, dim=-1)
            y = F.silu(gate) * up
        else:
            y = F.gelu(y)
        return x + self._drop(self.contract(y))

    def attend(self, x: Tensor, rotation: tuple[Tensor, ...]) -> Tensor:
        """Causal attention of [B, T, H] over itself."""
        groups = (self.heads, self.kv_heads, self.kv_heads)
        parts = self.qkv(x).split([heads * self.head for heads in groups], dim=-1)
        q, k, v = (  # [B, A, T, D], [B, K, T, D] twice
            part.unflatten(-1, (heads, self.head)).transpose(1, 2)
            for part, heads in zip(parts, groups)
        )
        if rotation:
            q, k = rotated(q, *rotation), rotated(k, *rotation)
        if self.kv_heads != self.heads:
            k, v = (y.repeat_interleave(self.heads // self.kv_heads, 1) for y in (k, v))
        dropout = self.dropout if self.training else 0.0
        if self.fused:
            y = F.scaled_dot_product_attention(
                q, k, v, dropout_p=dropout, is_causal=True
            )
        else:
            scores = q @ k.transpose(-2, -1) * self.head**-0.5  # [B, A, T, T]
            length = x.shape[1]
            future = self.future[:length, :length]
            shares = F.softmax(scores.masked_fill(future, float("-inf")), dim=-1)
            y = self._drop(shares) @ v
        return self.project(y.transpose(1, 2).flatten(2))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class Decoder(nn.Module):
    """Tokens [B, T] and targets [B, T] to the mean cross entropy, in nats a token.

    `attention` and `dropout` are those of `formula`. `checkpointing` keeps of each block
    its input alone and runs it again in the backward pass.
    """

    def __init__(
        self,
        shape: Shape,
        sequence: int,
        attention: str = "sdpa",
        dropout: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        require_one_of("attention", attention, ATTENTIONS)
        self.dropout, self.checkpointing = dropout, checkpointing
        self.tokens = nn.Embedding(shape.vocabulary, shape.hidden)
        self.rotary = shape.positions == "rotary"
        if self.rotary:
            angles = rotary_angles(sequence, shape.hidden // shape.heads)  # [T, D / 2]
            self.register_buffer("cos", angles.cos())
            self.register_buffer("sin", angles.sin())
        else:
            self.positions = nn.Embedding(sequence, shape.hidden)
        self.blocks = nn.ModuleList(
            Block(shape, sequence, attention, dropout) for _ in range(shape.layers)
        )
        self.norm = make_norm(shape)
        self.head = nn.Linear(shape.hidden, shape.vocabulary, bias=False)
        if shape.tied:
            self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of predicting `targets` after `tokens`."""
        length = tokens.shape[1]
        x, rotation = self.tokens(tokens), ()  # [B, T, H]
        if self.rotary:
            rotation = self.cos[:length], self.sin[:length]
        else:
            x = x + self.positions(torch.arange(length, device=tokens.device))
        x = F.dropout(x, self.dropout, self.training)
        for block in self.blocks:
            if self.checkpointing and self.training:
                x = checkpoint(block, x, rotation, use_reentrant=False)
            else:
                x = block(x, rotation)
        logits = self.head(self.norm(x))  # [B, T, V]
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def make_norm(shape: Shape) -> nn.Module:
    """Return the norm of the width of the residual stream."""
    return (nn.LayerNorm if shape.norm == "layernorm" else nn.RMSNorm)(shape.hidden)


def rotary_angles(sequence: int, head: int) -> Tensor:
    """Return the angles [T, D / 2] by which pairs of numbers of a head are turned."""
    rates = 10_000.0 ** -(torch.arange(0, head, 2) / head)
    return torch.outer(torch.arange(sequence), rates)


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return [B, A, T, D] with the halves of each head turned by angles [T, D / 2]."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    turned = first * cos - second * sin, first * sin + second * cos
    return torch.cat(turned, dim=-1)

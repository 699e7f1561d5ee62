"""A GPT that knows no precision: every dtype is decided by who calls it.

Radford et al. 2019 (GPT-2): learned positions, pre-norm blocks, GELU, tied head.
Letters in the shapes: B batch, T sequence, H hidden, A heads, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpteach.errors import InputError


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT; `sequence` is the longest input, in tokens."""

    layers: int
    heads: int
    hidden: int
    sequence: int
    vocabulary: int = 256


# GPT-2's 50,257 tokens, padded: products whose width is no multiple of 64 are slow.
_LARGE = {"sequence": 1024, "vocabulary": 50304}
SIZES = {
    "tiny": GPTConfig(layers=2, heads=4, hidden=128, sequence=64),
    "25M": GPTConfig(layers=8, heads=8, hidden=512, sequence=512),
    "124M": GPTConfig(layers=12, heads=12, hidden=768, **_LARGE),
    "350M": GPTConfig(layers=24, heads=16, hidden=1024, **_LARGE),
    "1.3B": GPTConfig(layers=24, heads=16, hidden=2048, **_LARGE),
}


def config(size: str) -> GPTConfig:
    """Return the shape called `size`; raise InputError that lists the names."""
    if not isinstance(size, str) or size not in SIZES:
        raise InputError(f"unknown size {size!r}: choose from {', '.join(SIZES)}.")
    return SIZES[size]


class Block(nn.Module):
    """Attention, then an MLP, each on a normalised copy of the residual stream."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.attention_norm = nn.LayerNorm(config.hidden)
        self.qkv = nn.Linear(config.hidden, 3 * config.hidden)
        self.project = nn.Linear(config.hidden, config.hidden)
        self.mlp_norm = nn.LayerNorm(config.hidden)
        self.expand = nn.Linear(config.hidden, 4 * config.hidden)
        self.contract = nn.Linear(4 * config.hidden, config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Map the residual stream [B, T, H] to [B, T, H]."""
        x = x + self.attend(self.attention_norm(x))
        return x + self.contract(F.gelu(self.expand(self.mlp_norm(x))))

    def attend(self, x: Tensor) -> Tensor:
        """Causal attention of [B, T, H] over itself."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # [B, T, 3, A, H/A]
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [B, A, T, H/A]
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.project(y.transpose(1, 2).flatten(2))


class GPT(nn.Module):
    """Tokens [B, T] to logits [B, T, V]; the head shares the embedding's weights."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.hidden)
        self.positions = nn.Embedding(config.sequence, config.hidden)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.hidden)
        self.apply(self._initialise)
        # Made without weights of its own, so that it draws no random numbers.
        self.head = nn.Linear(config.hidden, config.vocabulary, False, device="meta")
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Map token ids [B, T] to logits [B, T, V] for the token that follows each."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.tokens(tokens) + self.positions(places)  # [B, T, H]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))

    def groups(self) -> list[dict[str, list[nn.Parameter]]]:
        """Return all parameters as groups for an optimizer: a group a block, and the rest."""
        blocks = [list(block.parameters()) for block in self.blocks]
        rest = [self.tokens.weight, self.positions.weight, *self.norm.parameters()]
        return [{"params": params} for params in (*blocks, rest)]

    def _initialise(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        if isinstance(module, Block):
            # The residual stream adds 2 x layers terms: keep its variance at one term's.
            for last in (module.project, module.contract):
                nn.init.normal_(last.weight, std=0.02 / (2 * self.config.layers) ** 0.5)

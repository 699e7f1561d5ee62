"""Models that are no GPTs, to show that the tracer counts any module: small, but real.

Each entry makes a Case: how to build the model, a batch, and the loss.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mpteach.errors import InputError
from mpteach.inputs import shown
from mpteach.memory.step import Loss


@dataclass(frozen=True)
class Case:
    """What `trace` and `measure` need of a model."""

    make_model: Callable[[], nn.Module]
    make_batch: Callable[[], tuple]
    loss_fn: Loss


def classify(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of the model's logits [B, classes] and labels [B]."""
    return F.cross_entropy(model(x), labels)


def mlp(batch: int) -> Case:
    """Five linear layers with ReLU, 4096 wide."""

    def make() -> nn.Module:
        widths = [1024, 4096, 4096, 4096, 4096, 1000]
        layers: list[nn.Module] = []
        for before, after in zip(widths, widths[1:]):
            layers += [nn.Linear(before, after), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    return Case(make, lambda: _vectors(batch, 1024), classify)


class Residual(nn.Module):
    """Two convolutions with batch norm, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        y = F.relu(self.first_norm(self.first(x)))
        return F.relu(x + self.second_norm(self.second(y)))


def convnet(batch: int) -> Case:
    """Residual blocks with batch norm, whose statistics are buffers, and pooling."""

    def make() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 64, 7, stride=2, padding=3),
            nn.MaxPool2d(2),
            *(Residual(64) for _ in range(3)),
            nn.Conv2d(64, 256, 1),
            nn.AvgPool2d(2),
            *(Residual(256) for _ in range(3)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(256, 1000),
        )

    def images() -> tuple:
        return torch.randn(batch, 3, 128, 128), torch.randint(1000, (batch,))

    return Case(make, images, classify)


class Reused(nn.Module):
    """One layer applied six times, between an embedding and a head that share weights."""

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.layer = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens [B, T] to the logits [B, words] of the mean."""
        x = self.words(tokens)
        for _ in range(6):
            x = x + F.gelu(self.layer(x))
        return self.head(x.mean(1))


def reused(batch: int) -> Case:
    """Tied weights and a module used several times."""

    def tokens() -> tuple:
        return torch.randint(32_000, (batch, 256)), torch.randint(32_000, (batch,))

    return Case(lambda: Reused(32_000, 1024), tokens, classify)


def frozen(batch: int) -> Case:
    """The MLP with all but its last two layers frozen."""
    whole = mlp(batch)

    def make() -> nn.Module:
        model = whole.make_model()
        for layer in list(model)[:-3]:
            layer.requires_grad_(False)
        return model

    return Case(make, whole.make_batch, whole.loss_fn)


class Checkpointed(nn.Sequential):
    """A Sequential that keeps the input of each part alone, and runs the part again."""

    def forward(self, x: Tensor) -> Tensor:
        """Map x through all parts."""
        for part in self:
            x = checkpoint(part, x, use_reentrant=False) if self.training else part(x)
        return x


def checkpointed(batch: int) -> Case:
    """Wide feed-forward blocks under activation checkpointing."""

    def make() -> nn.Module:
        blocks = (
            nn.Sequential(
                nn.LayerNorm(1024),
                nn.Linear(1024, 4096),
                nn.GELU(),
                nn.Linear(4096, 1024),
            )
            for _ in range(8)
        )
        return Checkpointed(*blocks)

    return Case(make, lambda: _vectors(batch, 1024), classify)


MODELS: dict[str, Callable[[int], Case]] = {
    "mlp": mlp,
    "convnet": convnet,
    "reused": reused,
    "frozen": frozen,
    "checkpointed": checkpointed,
}


def case(name: str, batch: int) -> Case:
    """Return the Case called `name`; raise InputError that lists the names."""
    if not isinstance(name, str) or name not in MODELS:
        raise InputError(
            f"unknown model {shown(name)}: choose from {', '.join(MODELS)}."
        )
    return MODELS[name](batch)


def _vectors(batch: int, width: int) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, width), torch.randint(1000, (batch,))

"""What a report holds as data, and what its text says."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mpteach.debugging import ModuleRange, first_nonfinite
from mpteach.debugging.report import measure


class Scale(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.weight = nn.Parameter(torch.full((4,), value))

    def forward(self, x):
        return x * self.weight


class Norm(nn.Module):
    def forward(self, x):
        return x * (x.pow(2).mean(-1, keepdim=True) + 1e-5).rsqrt()


class FusedAttention(nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x)


class First(nn.Module):
    def forward(self, x):
        return x["a"][0]


def test_the_text_says_what_happened_in_a_few_lines():
    model = nn.Sequential(Scale(300.0), Norm()).half()
    lines = str(first_nonfinite(model, torch.ones(2, 4).half())).splitlines()
    assert lines[:4] == [
        "First inf: forward, 1, pow.",
        "  code    return x * (x.pow(2).mean(-1, keepdim=True) + 1e-5).rsqrt()",
        "  input   float16 [2, 4], 300 to 300",
        "  output  float16 [2, 4], no finite value but 0, 8 inf",
    ]
    assert "float16" in lines[4] and "bfloat16" in lines[4]
    assert lines[5].startswith("  forward 0") and "0.005 of max" in lines[5]
    assert len(lines) == 6


def test_the_operation_is_named_with_the_call_it_was_for():
    model = nn.Sequential(Scale(1e5), nn.Linear(4, 4))
    with torch.autocast("cpu", dtype=torch.float16):
        report = first_nonfinite(model, torch.ones(1, 4))
    assert str(report).startswith("First inf: forward, 1, _to_copy in linear.\n")


def test_modules_stand_nearest_to_a_limit_first_and_hold_what_they_computed():
    """Fused attention's log-sum-exp, log(5), is for the backward pass: no output."""
    model = nn.Sequential(Scale(2.0**-10), FusedAttention(), Scale(0.5), Norm()).half()
    with torch.no_grad():
        model[2].weight.fill_(2.0**15)
    x = torch.ones(1, 1, 5, 4).half() * 2.0**5
    report = first_nonfinite(model, x)
    spans = {one.module: (one.smallest, one.largest) for one in report.modules}
    small, large = 2.0**-5, 2.0**10
    assert spans == {"0": (small,) * 2, "1": (small,) * 2, "2": (large,) * 2}
    assert report.modules[0].module == "2"
    assert report.module == "3" and report.kind == "inf"


def test_a_range_counts_what_is_not_finite():
    x = torch.tensor([0.0, -0.5, 3.0, math.nan, math.inf, -math.inf, -math.inf])
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        span = measure(x.to(dtype))
        assert (span.smallest, span.largest) == (0.5, 3.0)
        assert (span.nan, span.positive_inf, span.negative_inf, span.inf) == (
            1,
            1,
            2,
            3,
        )
    assert str(measure(x)) == "float32 [7], 0.5 to 3, 1 NaN, 1 inf, 2 -inf"
    assert measure(x[:1]).largest is None and measure(x[:0]).smallest is None
    assert measure(x[1:3].to(torch.float8_e5m2)).largest == 3.0


def test_headroom_is_the_ratio_to_each_limit():
    span = ModuleRange("forward", "a", 2.0**-25, 131008.0)
    assert span.headroom("float16") == (2.0, 0.5)
    assert span.binades_left("float16") == -1.0
    assert span.headroom("bfloat16")[1] == 2.0 ** (133 - 25)
    assert span.headroom("bfloat16")[0] == pytest.approx(131008 / 3.3895e38, rel=1e-4)


def poisoned(module, name, value):
    getattr(module, name).data.view(-1)[0] = value
    return module


@pytest.mark.parametrize(
    ("model", "x", "module", "kind"),
    [
        (
            poisoned(nn.Linear(4, 2), "weight", math.inf),
            torch.ones(1, 4),
            "parameter weight",
            "inf",
        ),
        (
            poisoned(nn.Linear(4, 2), "bias", -math.inf),
            torch.ones(1, 4),
            "parameter bias",
            "inf",
        ),
        (
            poisoned(nn.BatchNorm1d(4), "running_var", math.nan),
            torch.ones(2, 4),
            "buffer running_var",
            "NaN",
        ),
        (nn.Linear(4, 2), torch.full((1, 4), math.nan), "input 0", "NaN"),
        (First(), {"a": [torch.ones(2) * math.inf]}, "input 0", "inf"),
    ],
)
def test_what_was_wrong_before_is_told_first(model, x, module, kind):
    report = first_nonfinite(model, x)
    assert (report.phase, report.module, report.kind) == ("before", module, kind)
    assert str(report).startswith(f"{module} already holds {kind}: float32 [")

"""The notes' statements about bytes: in memory, and between GPUs."""

from mpteach.claims import evidence, flow
from mpteach.claims.rule import Claim, Finding, Place
from mpteach.hardware.roofline import all_reduce_bytes, stored_bytes
from mpteach.memory.cases import Setting

MIB, BUDGET = 2**20, 24 * 10**9
HALVED = (0.45, 0.55)  # what may be called half
LEAST = 0.01  # of a peak: what may be called smaller
SIZE, PROCESSES = "25M", 8
LARGE = {"model": "gpt2", "batch": 8}
FEW = {"model": "gpt2", "batch": 1, "sequence": 256, "optimizer": "adamw-foreach"}


def _half_the_memory() -> Finding:
    large = {n: evidence.peak(Setting(**LARGE, recipe=n)) for n in _RECIPES}
    few = {n: evidence.peak(Setting(**FEW, recipe=n)) for n in ("fp32", "amp-bf16")}
    count = evidence.weights(SIZE)
    single, half = (
        count * stored_bytes(dtype) / MIB for dtype in ("float32", "float16")
    )
    base, casts, masters, pure = large.values()
    return Finding(
        {
            "weights stored in 16 bits": _is_half(half / single),
            "a step with everything in 16 bits": _is_half(pure / base),
            "a step under autocast": _is_half(casts / base),
            "a step with master weights": _is_half(masters / base),
            "a step with few tokens": _is_half(few["amp-bf16"] / few["fp32"]),
        },
        "weights {single:.1f} to {half:.1f} MiB ({size}); GPT-2, {batch} x {sequence}: "
        "{base:,.0f} MiB, autocast {casts:+.0%}, masters {masters:+.0%}, pure bfloat16 "
        "{pure:+.0%}; {few} x "
        "{short}, foreach AdamW: {small:,.1f} MiB, autocast {same:,.1f}",
        {
            "single": single,
            "half": half,
            "size": SIZE,
            "batch": LARGE["batch"],
            "sequence": Setting(**LARGE).sequence,
            "base": base / MIB,
            "casts": casts / base - 1,
            "masters": masters / base - 1,
            "pure": pure / base - 1,
            "few": FEW["batch"],
            "short": FEW["sequence"],
            "small": few["fp32"] / MIB,
            "same": few["amp-bf16"] / MIB,
        },
    )


_RECIPES = ("fp32", "amp-bf16", "bf16-master", "pure-bf16")


def _is_half(ratio: float) -> bool:
    return HALVED[0] <= ratio <= HALVED[1]


def largest_batch(recipe: str, budget_bytes: int = BUDGET) -> int:
    """Return the largest measured batch of GPT-2 that fits, the CUDA context included."""
    return max(
        setting.batch
        for setting, row in evidence.rows().items()
        if setting == Setting("gpt2", setting.batch, recipe=recipe)
        and row["reserved_peak"] + row["outside_allocator"] <= budget_bytes
    )


def _larger_batch() -> Finding:
    base, casts, masters, pure = (largest_batch(name) for name in _RECIPES)
    few = [evidence.peak(Setting(**FEW, recipe=name)) for name in _RECIPES[:2]]
    return Finding(
        {
            "autocast": casts > base,
            "master weights": masters > base,
            "everything in 16 bits": pure > base,
            "autocast with few tokens": few[1] < (1 - LEAST) * few[0],
        },
        "GPT-2 in {budget:g} GB: {base} sequences in float32, {casts} under autocast "
        "({gain:.2f} times), {masters} with masters, {pure} in pure bfloat16 ({more:.2f} "
        "times); {few} x {short}, foreach AdamW: {single:,.1f} MiB, autocast {same:,.1f}",
        {
            "budget": BUDGET / 1e9,
            "base": base,
            "casts": casts,
            "gain": casts / base,
            "pure": pure,
            "more": pure / base,
            "masters": masters,
            "few": FEW["batch"],
            "short": FEW["sequence"],
            "single": few[0] / MIB,
            "same": few[1] / MIB,
        },
    )


def _less_traffic() -> Finding:
    count = evidence.weights(SIZE)

    def sent(dtype: str) -> float:
        return all_reduce_bytes(count, dtype, PROCESSES)

    single = sent(flow.observe("fp32").dtypes["gradient"])
    casts = sent(flow.observe("bf16").dtypes["gradient"])
    half = flow.observe("bf16-master").dtypes["gradient"]
    masters = sent(half)
    return Finding(
        {
            "autocast": casts < single,
            "weights in 16 bits": masters < single,
            "gradients cast to be sent": sent(flow.observe("bf16").dtypes["used"])
            < single,
        },
        "{size} weights on {processes} GPUs, sent by each: {single:.1f} MB in float32, "
        "{casts:.1f} under autocast, {masters:.1f} with gradients in {half}",
        {
            "size": SIZE,
            "processes": PROCESSES,
            "single": single / 1e6,
            "casts": casts / 1e6,
            "masters": masters / 1e6,
            "half": half,
        },
    )


def _gradients_cost() -> Finding:
    single, casts, master = (
        flow.observe(name) for name in ("fp32", "fp16", "fp16-master")
    )
    both = master.state_bytes + stored_bytes("float32")  # a float32 gradient beside
    of_one = [one.sizes["gradients"][0] for one in (single, casts, master)]
    return Finding(
        {
            "autocast": casts.state_bytes < single.state_bytes,
            "masters": master.state_bytes < single.state_bytes,
            "masters and both gradients": both < single.state_bytes,
            "a 16-bit gradient by itself": of_one[2] < of_one[0],
        },
        "bytes a parameter with AdamW: float32 {single:g}, autocast {casts:g}, masters "
        "{master:g} to {both:g}; the gradient alone {g:g}, under autocast {gc:g}, with "
        "masters {gm:g} to {gb:g}",
        {
            "single": single.state_bytes,
            "casts": casts.state_bytes,
            "master": master.state_bytes,
            "both": both,
            "g": of_one[0],
            "gc": of_one[1],
            "gm": of_one[2],
            "gb": of_one[2] + stored_bytes("float32"),
        },
    )


def _less_bandwidth() -> Finding:
    n = evidence.largest_size()
    gains = {
        name: evidence.seconds(name, "float32", n)
        / evidence.seconds(name, "bfloat16", n)
        for name in ("copy", "add", "gelu", "softmax", "layer_norm", "adamw")
    }
    # Half of the traffic is twice the speed, where moving is all there is to do.
    return Finding(
        {name: _is_half(1 / gain) for name, gain in gains.items()},
        "{n} x {n} in bfloat16: a copy is {copy:.2f} times as fast, GELU {gelu:.2f}, "
        "softmax {softmax:.2f}",
        {"n": n, **gains},
    )


_COUNT, _HALF = "count_the_memory", "why_half"
CLAIMS = (
    Claim(
        "C02",
        "A model in float16 needs half of the memory.",
        _half_the_memory,
        (
            Place(_COUNT, "casts-record"),
            Place(_COUNT, "casts-small"),
            Place(_HALF, "bytes-weights"),
        ),
        "Weights stored in 16 bits take half. A training step saves what its activations "
        "shrink, which may be nothing.",
    ),
    Claim(
        "C03",
        "The smaller memory allows a larger batch.",
        _larger_batch,
        (
            Place(_COUNT, "fit-figure"),
            Place(_COUNT, "fit-figure-drawn"),
            Place(_COUNT, "fit-rule"),
            Place(_COUNT, "casts-small"),
        ),
        "The batch grows by what one more sequence costs less.",
    ),
    Claim(
        "C04",
        "Between GPUs far less is sent, and there is far less waiting.",
        _less_traffic,
        (Place(_HALF, "wire-table"),),
        "What is sent has the dtype of the gradients. Under autocast that is float32.",
    ),
    Claim(
        "C08",
        "Without mixed precision both passes store gradients in float32, which takes far "
        "more memory than with it.",
        _gradients_cost,
        (Place(_COUNT, "state-table"),),
        "For a parameter mixed precision keeps as many bytes as float32, or more. What "
        "shrinks are activations.",
    ),
    Claim(
        "C21",
        "The need for memory bandwidth is halved, and data flow faster by that.",
        _less_bandwidth,
        (Place(_HALF, "move-table"),),
        "What only moves bytes takes half of the time; what also computes gains less.",
    ),
)

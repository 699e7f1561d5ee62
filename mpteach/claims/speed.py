"""The notes' statements about speed, and about what hardware computes."""

from mpteach import comparison, differences
from mpteach.claims import evidence
from mpteach.claims.rule import Claim, Finding, Place
from mpteach.hardware import peaks
from mpteach.records import Record

CLAIMED = (2, 8)  # times the throughput
THEN, PRODUCT = "V100", 8192
CPU = "Xeon 6980P"  # the one in the list of datasheets that is no GPU
TRAINING, FORWARD = "tokens_per_second", "forward_tokens_per_second"


def ratios() -> dict[str, float]:
    """Return how many times as fast float16 is as single precision, by what is compared.

    The promise for the paper's GPU first; then a large product, and whole training steps
    of every recorded comparison.
    """
    then = peaks.get(THEN)
    found = {f"{THEN}, by its datasheet": then.float16 / then.float32}
    product = {
        dtype: evidence.seconds("product", dtype, PRODUCT)
        / evidence.seconds("product", "float16", PRODUCT)
        for dtype in ("float32", "tfloat32")
    }
    gpu = evidence.gpu_of(evidence.record("ceilings_h200"))
    found[f"{gpu}, large product, next to float32"] = product["float32"]
    found[f"{gpu}, large product, next to TF32"] = product["tfloat32"]
    for size, record in evidence.uncompiled().items():
        for base, said in (("fp32", "float32"), ("tf32", "TF32")):
            ratio = comparison.speed_up(record, "fp16", base)
            if ratio is not None:
                found[f"{evidence.gpu_of(record)}, training {size}, next to {said}"] = ratio
    return found


def is_within(ratio: float) -> bool:
    """Say whether a ratio is what the notes say, 2 to 8."""
    return CLAIMED[0] <= ratio <= CLAIMED[1]


def _throughput() -> Finding:
    found = ratios()
    promised, single, tf32, *_ = found.values()
    record = evidence.reference(evidence.uncompiled())
    steps = [comparison.speed_up(record, "fp16", base) for base in ("fp32", "tf32")]
    return Finding(
        {name: is_within(ratio) for name, ratio in found.items()},
        "{then} {promised:.1f} by its datasheet; on the {gpu} a product of {n} is "
        "{single:.1f} times float32 and {tf32:.1f} times TF32; a training step in fp16, "
        "{size}: {step:.2f} and {other:.2f} times",
        {
            "then": THEN,
            "promised": promised,
            "gpu": evidence.gpu_of(evidence.record("ceilings_h200")),
            "n": PRODUCT,
            "single": single,
            "tf32": tf32,
            "size": record.settings["size"],
            "step": steps[0],
            "other": steps[1] if steps[1] is not None else float("nan"),
        },
    )


def _speeds_up() -> Finding:
    found = {
        size: one
        for size, one in evidence.uncompiled().items()
        if "fp16" in comparison.recipes_in(one)
    }
    cases = {
        f"{said}, {size}, next to {differences.base_of(one)}": speed_up(one, key) > 1
        for size, one in found.items()
        for said, key in (("training", TRAINING), ("forward pass", FORWARD))
    }
    record, small = evidence.reference(evidence.uncompiled()), list(found.values())[-1]
    return Finding(
        cases,
        "fp16 next to fp32, {size}: {training:.2f} times in training, {forward:.2f} "
        "forward; {tiny}: {slow:.2f} and {slower:.2f}",
        {
            "size": record.settings["size"],
            "training": speed_up(record, TRAINING),
            "forward": speed_up(record, FORWARD),
            "tiny": small.settings["size"],
            "slow": speed_up(small, TRAINING),
            "slower": speed_up(small, FORWARD),
        },
    )


def speed_up(record: Record, key: str) -> float:
    """Return how many times as fast fp16 is as fp32 in `record`, or as its base there."""
    return comparison.speed_up(record, "fp16", differences.base_of(record), key) or 0.0


def _hardware() -> Finding:
    gains = {
        one.name: one.float16 / one.float32
        for one in peaks.PROCESSORS.values()
        if one.float16 and one.name != CPU
    }
    return Finding(
        {name: gain > 1 for name, gain in gains.items()},
        "products in float16 by datasheet: {low:.1f} to {high:.1f} times float32",
        {"low": min(gains.values()), "high": max(gains.values())},
    )


def _more_popular() -> Finding:
    known = peaks.PROCESSORS.values()
    without = [one for one in known if not one.bfloat16]
    since = min(one.year for one in known if one.bfloat16)
    return Finding(
        {
            "in what is sold": all(one.bfloat16 for one in known if one.year >= since),
            "more than before": bool(without) and max(o.year for o in without) < since,
        },
        "datasheets without bfloat16: {without}; with it: all from {since} on",
        {
            "without": ", ".join(f"{one.name} ({one.year})" for one in without),
            "since": since,
        },
    )


_HALF = "why_half"
CLAIMS = (
    Claim(
        "C05",
        "On recent GPUs the throughput of half precision can be 2 to 8 times that of "
        "single precision, as a paper says.",
        _throughput,
        (
            Place(_HALF, "sheet-ratios"),
            Place(_HALF, "reach-table"),
            Place(_HALF, "steps-table"),
        ),
        "A factor says nothing without its GPU, its size, what it is compared with, and "
        "whether it is a product or a whole step.",
    ),
    Claim(
        "C16",
        "float16 speeds up training and inference.",
        _speeds_up,
        (Place(_HALF, "steps-table"),),
        "16 bits are faster where products are large. Where launches are the limit they "
        "gain nothing.",
    ),
    Claim(
        "C22",
        "Many GPUs are made to compute float16 fast.",
        _hardware,
        (Place(_HALF, "sheet-ratios"),),
    ),
    Claim(
        "C23",
        "bfloat16 becomes more common in hardware for machine learning.",
        _more_popular,
        (Place(_HALF, "sheet-table"),),
    ),
)

"""The first chapter's checkers: right answers pass, wrong ones get their hint."""

import numpy as np

GIB = 2**30


def rounded(values):
    return values.astype(np.float16).astype(np.float32)


def minutes(report, *runs):
    return sum(c["minutes"] for c in report["chapters"] if c["runs"] in runs)


def loop_over_chapters(report):
    total = 0
    for chapter in report["chapters"]:
        if chapter["runs"] == "records":
            total += chapter["minutes"]
    return total


RIGHT = {
    "00-0": [8, 8.0],
    "00-1": [
        lambda weights, bits: weights * bits / 8 / GIB,
        lambda weights, bits: weights * (bits // 8) / 1024**3,
    ],
    "00-2": [lambda report: minutes(report, "records"), loop_over_chapters],
    "00-3": [
        lambda count, base_ms, ratio: count * base_ms * ratio / 1000,
        lambda count, base_ms, ratio: count * (base_ms * 1e-3) * ratio,
    ],
    "00-4": [
        lambda a, b, c: rounded(rounded(a * b) * c),
        lambda a, b, c: rounded(a * b).astype(np.float16) * c.astype(np.float16),
        lambda a, b, c: np.prod(np.float16([a, b, c]), axis=0, dtype=np.float16),
    ],
}

WRONG = {
    "00-0": [
        (10, "leave out"),
        (4, "leave out"),
        (16, "leave out"),
        (1, "leave out"),
        ("ten", "leave out"),
    ],
    "00-1": [
        (lambda weights, bits: weights * bits / 8 / 10**9, "in GB"),
        (lambda weights, bits: weights * bits / GIB, "Those are bits"),
        (lambda weights, bits: weights * bits / 8 / 2**20, "in MiB"),
        (lambda weights, bits: weights * bits / 8, "Those are bytes"),
        (lambda weights, bits: weights * bits // 8 // GIB, "dropped the fraction"),
        (lambda weights, bits: weights * 4 / GIB, "depend on the bits"),
        (lambda weights, bits: weights / GIB, "on paper: 3,000,000,000"),
        (lambda weights, bits: f"{weights * bits / 8 / GIB} GiB", "cannot be used"),
    ],
    "00-2": [
        (lambda report: minutes(report, "records", "no"), "reads none"),
        (lambda report: minutes(report, "live"), "computed live"),
        (lambda report: minutes(report, "live", "records", "no"), "all chapters"),
        (lambda r: sum(c["runs"] == "records" for c in r["chapters"]), "add up"),
        (lambda r: [c["minutes"] for c in r["chapters"]], "one number"),
        (lambda report: 777, "your function is given"),
        (lambda report: 90, "your function is given"),
        (lambda report: report["minutes"], "raised KeyError"),
    ],
    "00-3": [
        (lambda count, base_ms, ratio: count * base_ms * ratio, "milliseconds"),
        (lambda count, base_ms, ratio: count * base_ms / ratio / 1000, "slower"),
        (lambda count, base_ms, ratio: count * base_ms / 1000, "no effect"),
        (lambda count, base_ms, ratio: base_ms * ratio / 1000, "one product"),
        (
            lambda count, base_ms, ratio: count * base_ms * (1 + ratio) / 1000,
            "replaces",
        ),
        (lambda count, base_ms, ratio: count + base_ms + ratio, "by hand"),
        (lambda count, base_ms, ratio: 64, "by hand: 300"),
    ],
    "00-4": [
        (lambda a, b, c: a * b * c, "Nothing is rounded"),
        (lambda a, b, c: rounded(a * b * c), "One rounding is missing"),
        (lambda a, b, c: rounded(a * b) * c, "must be a float16 value"),
        (lambda a, b, c: rounded(a * rounded(b * c)), "Mind the order"),
        (lambda a, b, c: rounded(a * b), "third factor"),
        (lambda a, b, c: rounded(a.astype(float) * b * c), "One rounding is missing"),
        (lambda a, b, c: rounded(rounded(a * b) + c), "Go in steps"),
        (lambda a, b, c: float(a[0] * b[0] * c[0]), "Return an array"),
    ],
}
# What a hint must not say: the answer, as a number or as the code of a solution.
ANSWERS = {
    "00-0": ["8", "eight"],
    "00-1": ["/ 8", "2**30", "1024"],
    "00-2": ["90", '== "records"', "== 'records'"],
    "00-3": ["/ 1000", "thousand"],
    "00-4": ["twice", "two roundings"],
}

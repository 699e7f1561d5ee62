"""Checkers of speed and bytes: right answers pass, wrong ones get their hint."""


def intensity(m, k, n, size):
    return 2 * m * k * n / (size * (m * k + k * n + m * n))


def without_result(m, k, n, size):
    return 2 * m * k * n / (size * (m * k + k * n))


def sent(weights, way, processes):
    size = 2 if way == "float16 weights" else 4
    return 2 * (processes - 1) / processes * weights * size


def sent_by_steps(weights, way, processes):
    size = {"float32": 4, "autocast": 4, "float16 weights": 2}[way]
    return sum(weights / processes * size for _ in range(2 * (processes - 1)))


def autocast_halved(weights, way, processes):
    return sent(weights, way.replace("autocast", "float16 weights"), processes)


def gain(intensity, peak32, peak16, bandwidth):
    before = min(peak32, intensity * bandwidth)
    return min(peak16, 2 * intensity * bandwidth) / before


def step_gain(operations, peak32, peak16, bandwidth, launch):
    def seconds(peak, size):
        return sum(
            max(launch, flop / peak, size * numbers / bandwidth)
            for flop, numbers in operations
        )

    return seconds(peak32, 4) / seconds(peak16, 2)


def total(operations, peak, size, bandwidth, launch):
    return sum(max(launch, f / peak, size * x / bandwidth) for f, x in operations)


def mean_gain(operations, *machine):
    gains = [step_gain([one], *machine) for one in operations]
    return sum(gains) / len(gains)


def without_launch(operations, peak32, peak16, bandwidth, launch):
    return step_gain(operations, peak32, peak16, bandwidth, 0.0)


def same_bytes(operations, peak32, peak16, bandwidth, launch):
    before = total(operations, peak32, 4, bandwidth, launch)
    return before / total(operations, peak16, 4, bandwidth, launch)


def largest_of_sums(operations, peak32, peak16, bandwidth, launch):
    flop, numbers = (sum(column) for column in zip(*operations, strict=True))
    count = len(operations)
    return step_gain([(flop, numbers)], peak32, peak16, bandwidth, launch * count)


def summed(operations, peak32, peak16, bandwidth, launch):
    def seconds(peak, size):
        return sum(launch + f / peak + size * x / bandwidth for f, x in operations)

    return seconds(peak32, 4) / seconds(peak16, 2)


RIGHT = {
    "03-1": [intensity],
    "03-2": [sent, sent_by_steps],
    "03-3": [gain],
    "03-4": [step_gain],
}

WRONG = {
    "03-1": [
        (lambda m, k, n, s: intensity(m, k, n, s) / 2, "what is done for a term"),
        (lambda m, k, n, s: 1 / intensity(m, k, n, s), "not FLOP for each byte"),
        (lambda m, k, n, s: intensity(m, k, n, 1), "how many bytes are they"),
        (lambda m, k, n, s: intensity(m, k, n, 8 * s), "divided by bits"),
        (without_result, "written at the end"),
        (lambda m, k, n, s: 2 * k / (3 * s), "differ in size"),
        (lambda m, k, n, s: 2 * m / (3 * s), "differ in size"),
        (lambda m, k, n, s: 2 * m * k * n, "on paper"),
    ],
    "03-2": [
        (autocast_halved, "gradient of a float32 weight"),
        (lambda w, way, n: n * sent(w, way, n), "all send together"),
        (lambda w, way, n: sent(w, way, n) / 2, "more than once"),
        (lambda w, way, n: 2 * w * (2 if "16" in way else 4), "In how many steps"),
        (lambda w, way, n: sent(w, "float32", n), "bytes does one number"),
        (lambda w, way, n: sent(w, way, n) * 8, "all send together"),
        (lambda w, way, n: sent(w, way, n) or 4.0 * w, "nobody to send to"),
        (lambda w, way, n: w, "Run the ring"),
        (lambda w, way, n: -sent(w, way, n), "Run the ring"),
    ],
    "03-3": [
        (lambda i, p, q, b: min(q, i * b) / min(p, i * b), "moves fewer bytes"),
        (lambda i, p, q, b: min(q, i * b / 2) / min(p, i * b), "goes the other way"),
        (lambda i, p, q, b: 1 / gain(i, p, q, b), "upside down"),
        (lambda i, p, q, b: q / p, "reach the peak in both"),
        (lambda i, p, q, b: 2, "Is memory the limit in both"),
        (lambda i, p, q, b: min(2, q / p), "Is memory the limit in both"),
        (lambda i, p, q, b: min(q, 2 * i * b), "then divide"),
        (lambda i, p, q, b: 2 if i < p / b else q / p, "reach the peak in both"),
    ],
    "03-4": [
        (lambda *given: 1 / step_gain(*given), "upside down"),
        (mean_gain, "counts like a long one"),
        (without_launch, "launched more slowly"),
        (same_bytes, "before and after"),
        (largest_of_sums, "its own limit"),
        (summed, "the longest"),
        (lambda ops, p, q, b, t: q / p, "the longest"),
        (lambda ops, p, q, b, t: 2, "the longest"),
    ],
}
# What a hint must not say: the answer, as a number or as the code of a solution.
ANSWERS = {
    "03-1": ["2 * m", "m * n", "2 *"],
    "03-2": ["- 1", "2 (", "float32 has"],
    "03-3": ["2 *", "min(", "double"],
    "03-4": ["max(", "sum("],
}

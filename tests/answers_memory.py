"""Checkers of bytes: right answers pass, wrong ones get their hint."""


def state(parameters, recipe):
    each = {"fp32": 16, "autocast": 16, "pure bf16": 8, "masters": 20}
    return parameters * each[recipe]


def other_state(**changed):
    def answer(parameters, recipe):
        return parameters * changed.get(recipe.replace(" ", "_"), state(1, recipe))

    return answer


def logits(tokens, words, recipe):
    return tokens * words * {"fp32": 12, "autocast": 10, "pure bf16": 6}[recipe]


def other_logits(**changed):
    def answer(tokens, words, recipe):
        each = changed.get(recipe.replace(" ", "_"), logits(1, 1, recipe))
        return tokens * words * each

    return answer


def cached(memory, layers, heads, kv_heads, hidden, size):
    return memory // (2 * layers * kv_heads * (hidden // heads) * size)


def peak(events, block=lambda size: -(-size // 512) * 512):
    alive, most = {}, 0
    for name, size in events:
        alive[name] = block(size)
        most = max(most, sum(alive.values()))
    return most


def peak_of_counter(events):
    now, most, sizes = 0, 0, {}
    for name, size in events:
        if size:
            sizes[name] = (size + 511) // 512 * 512
            now += sizes[name]
        else:
            now -= sizes.pop(name)
        most = max(now, most)
    return most


def rounded_sum(events):
    return -(-peak(events, lambda size: size) // 512) * 512


def all_of_them(events):
    return sum(-(-size // 512) * 512 for _, size in events)


def at_the_end(events):
    return sum({name: -(-size // 512) * 512 for name, size in events}.values())


def largest(events):
    return max((-(-size // 512) * 512 for _, size in events), default=0)


RIGHT = {
    "07-1": [state],
    "07-2": [logits],
    "07-3": [cached],
    "07-4": [peak, peak_of_counter],
}

WRONG = {
    "07-1": [
        (other_state(autocast=12), "under autocast"),
        (other_state(autocast=14), "under autocast"),
        (other_state(autocast=18), "are no state"),
        (other_state(masters=16), "Both copies"),
        (other_state(masters=18), "Both copies"),
        (other_state(fp32=12), "Adam remember"),
        (other_state(fp32=8), "remembers something"),
        (other_state(pure_bf16=6), "Adam remember"),
        (other_state(pure_bf16=16), "part by part"),
        (lambda n, recipe: 8 * state(n, recipe), "bits and bytes"),
        (lambda n, recipe: 16, "part by part"),
    ],
    "07-2": [
        (other_logits(fp32=4), "gradients are there"),
        (other_logits(fp32=8), "One tensor"),
        (other_logits(autocast=6), "gradients are there"),
        (other_logits(autocast=4), "still needed"),
        (other_logits(autocast=8), "float32 beside 16 bits"),
        (other_logits(pure_bf16=4), "One tensor"),
        (other_logits(pure_bf16=2), "gradients are there"),
        (lambda n, words, recipe: n * words, "each term with n V"),
        (lambda n, words, recipe: words * 12, "each term with n V"),
    ],
    "07-3": [
        (lambda *given: cached(*given) * 2, "Two things are kept"),
        (lambda m, n, a, k, h, b: m / (2 * n * k * (h // a) * b), "as a whole"),
        (lambda m, n, a, k, h, b: cached(m, n, a, a, h, b), "share a key"),
        (lambda m, n, a, k, h, b: cached(m, 1, a, k, h, b), "Every layer"),
        (lambda m, n, a, k, h, b: cached(m, n, a, k, h, 1), "How many bytes does a"),
        (lambda m, n, a, k, h, b: cached(m, n, 1, k, h, b), "How wide"),
        (lambda m, n, a, k, h, b: m // h, "one token add"),
        (lambda m, n, a, k, h, b: m // (n * k * (h // a) * b), "Two things are kept"),
    ],
    "07-4": [
        (lambda events: peak(events, lambda size: size), "multiples of a grain"),
        (rounded_sum, "by itself"),
        (all_of_them, "freed before"),
        (at_the_end, "at the end"),
        (largest, "alive at once"),
        (lambda events: peak(events, lambda size: size // 512 * 512), "large enough"),
        (
            lambda events: peak(
                events, lambda size: (size // 512 + 1) * 512 if size else 0
            ),
            "needs no more",
        ),
        (lambda events: 7, "on paper"),
        (lambda events: peak(events) or 512, "nothing happens"),
    ],
}
# What a hint must not say: the answer, as a number or as the code of a solution.
ANSWERS = {
    "07-1": [" 16", " 18", " 20", " 8"],
    "07-2": ["12", "10", " 6"],
    "07-3": ["//", "2 *", "hidden //"],
    "07-4": ["512 *", "max(", "//"],
}

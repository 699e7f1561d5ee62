"""Checkers for bytes: of the state, of logits, of a cache, and of a peak."""

from collections.abc import Callable

from mpteach.exercises.registry import exercise

# weight, gradients, masters, Adam's two moments
_STATES = {
    "fp32": (4, 4, 0, 8),
    "autocast": (4, 4, 0, 8),
    "pure bf16": (2, 2, 0, 4),
    "masters": (2, 2 + 4, 4, 8),
}


@exercise("07-1")
def _state(answer: Callable) -> str:
    for parameters in (1, 124_439_808):
        for recipe, parts in _STATES.items():
            found = float(answer(parameters, recipe))
            if found == parameters * sum(parts):
                continue
            if hint := _state_hint(found / parameters, recipe, parts):
                return f"{hint} ({recipe})"
            return f"Add up what is kept for one parameter, part by part ({recipe})."
    return ""


def _state_hint(each: float, recipe: str, parts: tuple[int, ...]) -> str:
    weight, gradients, masters, moments = parts
    if recipe == "autocast" and each in (2 + 2 + 8, 2 + 4 + 8, 4 + 2 + 8, 2 + 2 + 4):
        return "Which dtype do weights and gradients have under autocast?"
    if recipe == "autocast" and each == sum(parts) + 2:
        return "The casts are gone when the optimizer steps, and are no state."
    if recipe == "masters" and each in (16, 18):
        return "Both copies of the gradient are there."
    if each == sum(parts) - moments / 2:
        return "How many numbers does Adam remember for a parameter?"
    if each == sum(parts) - moments:
        return "The optimizer remembers something as well."
    if recipe == "masters" and each == sum(parts) - masters:
        return "The optimizer works on a copy of the weights in float32."
    if each == sum(parts) - gradients:
        return "Something is there between the backward pass and the step."
    if each * 8 == sum(parts) or each == 8 * sum(parts):
        return "You mixed up bits and bytes."
    return ""


# Bytes a logit: what the loss keeps, and the gradients that its backward pass makes.
_LOGITS = {"fp32": (4, 8), "autocast": (6, 4), "pure bf16": (2, 4)}


@exercise("07-2")
def _logits(answer: Callable) -> str:
    for tokens, words in ((8192, 50257), (1, 1), (100, 256)):
        for recipe, (kept, made) in _LOGITS.items():
            found = float(answer(tokens, words, recipe)) / (tokens * words)
            if found == kept + made:
                continue
            case = f"for {tokens:,} tokens, {words:,} words, {recipe}"
            if found == kept:
                return f"At the peak gradients are there as well ({case})."
            if found == made == kept + made / 2:  # which one is missing cannot be told
                return f"One tensor as large as the logits is missing ({case})."
            if found == made:
                return f"The loss has kept something that is still needed ({case})."
            if recipe == "autocast" and found == 2 + 4 + 2:
                return f"Autocast has the loss in float32 beside 16 bits ({case})."
            return f"Find each term with n V in the account of this recipe ({case})."
    return ""


@exercise("07-3")
def _cache(answer: Callable) -> str:
    for memory, layers, heads, kv_heads, hidden, size in (
        *((10**9, 12, 12, 12, 768, 4), (10**9, 32, 32, 8, 4096, 2)),
        *((2**30, 32, 32, 8, 4096, 1), (1000, 2, 4, 2, 64, 2)),
    ):
        found = float(answer(memory, layers, heads, kv_heads, hidden, size))
        each = 2 * layers * kv_heads * (hidden // heads) * size
        case = f"for {memory:,} bytes, {layers} layers, {heads} heads, {kv_heads} of "
        case += f"keys, width {hidden}, {size} bytes a number"
        if found == memory // each:
            continue
        if found in (memory / each, -(-memory // each)):
            return f"A token is there as a whole or not at all ({case})."
        if found == memory // (each // 2):
            return f"Two things are kept for a token, in each layer ({case})."
        if found == memory // (each * heads // kv_heads):
            return f"Several heads share a key ({case})."
        if found == memory // (each // layers):
            return f"Every layer has keys of its own ({case})."
        if found == memory // (each // size):
            return f"How many bytes does a number take ({case})?"
        if found == memory // (2 * layers * kv_heads * hidden * size):
            return f"How wide is the key of one head ({case})?"
        return f"How many bytes does one token add ({case})?"
    return ""


_RUNS = (
    [("a", 512), ("b", 1024), ("a", 0), ("c", 2048), ("b", 0), ("c", 0)],
    [("a", 1), ("b", 1), ("c", 1)],
    [("a", 700), ("a", 0), ("b", 600), ("c", 1), ("b", 0), ("c", 0)],
    [("a", 5000), ("b", 100), ("b", 0), ("c", 100), ("c", 0), ("a", 0)],
    [],
)


@exercise("07-4")
def _peak(answer: Callable) -> str:
    for events in _RUNS:
        found, right = float(answer(list(events))), _largest(events, _rounded)
        case = f"for {events}"
        if found == right:
            continue
        if not events:
            return "Where nothing happens nothing is allocated."
        sizes = [_rounded(size) for _, size in events if size]
        if found == _largest(events, lambda size: size):
            return f"The allocator hands out multiples of a grain ({case})."
        if found == _rounded(_largest(events, lambda size: size)):
            return f"Each block is rounded by itself, not their sum ({case})."
        if found == sum(sizes):
            return f"Some were freed before others came ({case})."
        if found == max(sizes):
            return f"Several blocks are alive at once ({case})."
        if found == _left(events):
            return f"Not what is there at the end, but the most on the way ({case})."
        if found == _largest(events, lambda size: size // 512 * 512):
            return f"A block must be large enough for its request ({case})."
        if found == _largest(events, lambda size: (size // 512 + 1) * 512):
            return f"A size that is a multiple already needs no more ({case})."
        return f"Follow the events on paper, one by one ({case})."
    return ""


def _rounded(size: int) -> int:
    return -(-size // 512) * 512


def _largest(events: list[tuple[str, int]], block: Callable[[int], int]) -> int:
    """Return the most that is alive at once; `block` gives the bytes for a request."""
    alive: dict[str, int] = {}
    most = 0
    for name, size in events:
        alive[name] = block(size) if size else 0
        most = max(most, sum(alive.values()))
    return most


def _left(events: list[tuple[str, int]]) -> int:
    return sum({name: _rounded(size) for name, size in events}.values())

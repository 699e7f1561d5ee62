"""Checkers for loss scaling: what vanishes, how a scale moves, order, skipped steps."""

from collections.abc import Callable

import numpy as np

from mpteach.exercises.registry import exercise

# Gradients and scales around the tie at half of float16's smallest number.
_SMALL = (
    *((2.0**-25, 1.0), (2.0**-24, 1.0), (2.0**-25 * 1.01, 1.0), (-(2.0**-20), 1.0)),
    *((2.0**-30, 64.0), (2.0**-30, 32.0), (-(2.0**-41), 65536.0), (-(2.0**-42), 8.0)),
    *((2.0**-16, 1.0), (0.5, 1.0)),
)


@exercise("04-1")
def _vanishes(answer: Callable) -> str:
    for gradient, scale in _SMALL:
        found = bool(answer(gradient, scale))
        right = np.float16(gradient * scale) == 0
        if found == right:
            continue
        said = "does become zero" if right else "is kept"
        case = f"a gradient of {gradient:.3g} with scale {scale:g} {said}"
        if gradient < 0 and not right:
            return f"{case}: it is negative, look at its magnitude."
        if scale != 1:
            return f"{case}: compare it after it was scaled."
        if abs(gradient) >= 2.0**-16:
            return f"{case}: it is a subnormal or a normal number of float16."
        return f"{case}: which numbers does rounding to nearest take to zero?"
    return ""


@exercise("04-2")
def _next_scale(answer: Callable) -> str:
    # scale, clean steps so far, whether this step is finite, interval -> scale, clean
    for scale, clean, finite, interval in (
        *((1024.0, 3, False, 10), (1024.0, 3, True, 10), (1024.0, 9, True, 10)),
        *((8.0, 0, True, 1), (8.0, 0, False, 1), (1024.0, 9, False, 10)),
    ):
        found = tuple(float(part) for part in answer(scale, clean, finite, interval))
        right = (scale / 2, 0.0) if not finite else (scale, clean + 1.0)
        if finite and clean + 1 == interval:
            right = (scale * 2, 0.0)
        case = f"after {clean} clean steps, interval {interval}, finite is {finite}"
        if found == right:
            continue
        if found[0] != right[0] and not finite:
            return f"{case}: an inf or NaN calls for another scale, at once."
        if found[0] != right[0]:
            return f"{case}: is this clean step the last of the interval, or not yet?"
        if not finite or right[0] != scale:
            return f"{case}: the scale has just changed, so the count starts again."
        return f"{case}: the scale is right; count this step too."
    return ""


@exercise("04-3")
def _clipped(answer: Callable) -> str:
    for gradients, scale, limit in (
        ([3.0, 4.0], 1.0, 1.0),
        ([0.3, 0.4], 1.0, 1.0),
        ([3.0 * 1024, 4.0 * 1024], 1024.0, 1.0),
        ([30.0, -40.0], 1024.0, 1.0),
        ([-600.0, 800.0], 2.0, 5.0),
    ):
        found = np.asarray(answer(list(gradients), scale, limit), dtype=float)
        true = np.asarray(gradients) / scale
        right = true * min(1.0, limit / float(np.linalg.norm(true)))
        case = f"for gradients {gradients}, scale {scale:g} and max_norm {limit:g}"
        if found.shape == right.shape and np.allclose(found, right, rtol=1e-6):
            continue
        early = np.asarray(gradients) * min(1.0, limit / np.linalg.norm(gradients))
        if found.shape != right.shape:
            return f"Return one number a gradient ({case})."
        if np.allclose(found, early / scale):
            return f"You clipped first: whose norm did you take ({case})?"
        if np.allclose(found, early) or np.allclose(found, right * scale):
            return f"They are still scaled ({case})."
        if np.allclose(np.abs(found), np.abs(right)):
            return f"The sizes are right, the signs are not ({case})."
        if np.allclose(found, true):
            return f"The norm is still above max_norm ({case})."
        if np.linalg.norm(true) < limit:
            return f"These are short enough: nothing is to be clipped ({case})."
        return f"Compare the norm of what you return with max_norm ({case})."
    return ""


@exercise("04-4")
def _skipped(answer: Callable) -> str:
    for largest, scale in (
        *((1.0, 2.0**10), (1.0, 2.0**16), (1.0, 2.0**20), (0.001, 2.0**30)),
        *(
            (65504.0, 1.0),
            (65510.0, 1.0),
            (65520.0, 1.0),
            (3.0, 2.0**15),
            (0.7, 2.0**17),
        ),
    ):
        right, tried = 0, scale
        # 65520 is the tie between float16's largest number and 2^16: it overflows.
        while largest * tried >= 65520:
            right, tried = right + 1, tried / 2
        found = float(answer(largest, scale))
        case = f"with a largest gradient of {largest:g} and scale {scale:g}"
        if found == right:
            continue
        if found < 0 or found != int(found):
            return f"{case} you count {found:g} steps: give a whole number from 0."
        if 65504 < largest * scale < 65520:
            return f"{case}: rounded to nearest, the product is still finite."
        if right == 0:
            return f"{case} nothing overflows."
        if found == right - 1:
            return f"{case} one more step is skipped: is the product finite then?"
        if found == right + 1:
            return f"{case} you skip one step too many: try the scale before."
        return f"{case}: halve the scale by hand and see when the product is finite."
    return ""

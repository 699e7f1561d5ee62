"""The notes' statements about a training step: its dtypes, updates and losses."""

import statistics

import torch

from mpteach import comparison, differences, formats, recipes
from mpteach.claims import evidence, flow
from mpteach.claims.bits import BRAIN, GRADIENT, HALF, WEIGHT, decades
from mpteach.claims.rule import Claim, Finding, Place

MASTERS, AUTOCAST = "fp16-master", "fp16"
RATES = (1, 0.1, 0.01)
LATE = 0.9  # of the steps of a recorded training
DIGITS = 0.01  # of a step: what "loses precision" means


def _mixes() -> Finding:
    """Which recipes have two formats in one step."""
    formats_of = {name: _formats(one) for name, one in recipes.RECIPES.items()}
    mixed = [name for name, found in formats_of.items() if len(found) > 1]
    notes = {"float32", "float16"}
    others = [name for name in mixed if formats_of[name] != notes]
    return Finding(
        {name: formats_of[name] == notes for name in (AUTOCAST, *mixed)},
        "also mixed: {others}",
        {"others": ", ".join(others)},
    )


def _formats(recipe: recipes.Recipe) -> set[str]:
    found = {recipe.weights, recipe.products}
    return found | {"float32"} if recipe.masters else found


def _dtypes() -> Finding:
    masters, casts = flow.observe(MASTERS), flow.observe(AUTOCAST)
    return Finding(
        {
            "with master weights": _is_notes_flow(masters),
            "autocast": _is_notes_flow(casts),
        },
        "{master}: weights {w}, gradients {g}, read by the optimizer in {r}, which "
        "keeps {k}; {autocast}: weights "
        "{aw}, gradients {ag}, copies in the products {au}",
        {
            "master": MASTERS,
            "w": masters.sizes["weights"][1],
            "g": masters.dtypes["gradient"],
            "r": masters.dtypes["read"],
            "k": masters.dtypes["kept"],
            "autocast": AUTOCAST,
            "aw": casts.sizes["weights"][1],
            "ag": casts.dtypes["gradient"],
            "au": casts.dtypes["used"],
        },
    )


def _is_notes_flow(found: flow.Flow) -> bool:
    half = {found.sizes["weights"][1], found.dtypes["gradient"]}
    wide = {found.dtypes[kind] for kind in ("kept", "moments", "read")}
    return half == {"float16"} and wide == {"float32"}


def _through_the_scale() -> Finding:
    found = {name: flow.observe(name) for name in (MASTERS, AUTOCAST)}
    comes = {
        name: one.scale > 1
        and one.dtypes["gradient"] == "float16"
        and one.dtypes["read"] == "float32"
        for name, one in found.items()
    }
    return Finding(
        {"with master weights": comes[MASTERS], "autocast": comes[AUTOCAST]},
        "{master}: {g}, divided by the scale in {r}; {autocast}: {ag} when the scaler "
        "gets it, and the scaler {does} one in float16",
        {
            "master": MASTERS,
            "g": found[MASTERS].dtypes["gradient"],
            "r": found[MASTERS].dtypes["read"],
            "autocast": AUTOCAST,
            "ag": found[AUTOCAST].dtypes["gradient"],
            "does": "refused" if _scaler_refuses_half() else "takes",
        },
    )


def _scaler_refuses_half() -> bool:
    weight = torch.zeros(1, dtype=torch.float16, requires_grad=True)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(weight.sum()).backward()
    try:
        scaler.step(torch.optim.SGD([weight], lr=0.1))
    except ValueError:
        return True
    return False


def step(name: str, rate: float) -> dict[str, float]:
    """Return what one step of torch's SGD makes of the notes' weight in dtype `name`.

    `off` is in % of the true result, `ulps` how far the weight moved, `missing` the share
    of the step that was not taken or taken too far.
    """
    weight = torch.tensor([WEIGHT], dtype=getattr(torch, name), requires_grad=True)
    weight.grad, before = torch.full_like(weight, GRADIENT), weight.item()
    torch.optim.SGD([weight], rate).step()
    moved, true = before - weight.item(), rate * GRADIENT
    return {
        "off": 100 * (weight.item() / (WEIGHT - true) - 1),
        "ulps": moved / float(formats.get(name).ulp(before)),
        "missing": abs(moved / true - 1),
    }


def _updates() -> Finding:
    taken = {rate: [step(n, rate) for n in ("float16", "bfloat16")] for rate in RATES}
    cases = {
        f"rate {rate:g}": half["missing"] > DIGITS
        and brain["missing"] < half["missing"]
        for rate, (half, brain) in taken.items()
    }
    pairs, late, still, image = _pure_training()
    cases["a recorded training"] = not evidence.is_worse(pairs)
    return Finding(
        cases,
        "a step at rate {one:g} ends {half:+.3f} % off in float16, {brain:+.3f} % in "
        "bfloat16; one at rate {tenth:g} moves them by {ulp:.0f} and {ulps:.0f} ulp; step "
        "{late} of a training leaves {still:.0f} % of pure bfloat16 weights as they are "
        "({image:.0f} % of those with masters, which do move); its "
        "held-out loss minus that with masters: {loss:+.3f}",
        {
            "one": RATES[0],
            "half": taken[RATES[0]][0]["off"],
            "brain": taken[RATES[0]][1]["off"],
            "tenth": RATES[1],
            "ulp": taken[RATES[1]][0]["ulps"],
            "ulps": taken[RATES[1]][1]["ulps"],
            "still": 100 * still,
            "image": 100 * image,
            "late": late,
            "loss": statistics.fmean(pairs),
        },
    )


def _pure_training() -> tuple[list[float], int, float, float]:
    """Return pure bfloat16's losses minus those with masters, a late step, two shares.

    The shares are those of the 16-bit weights that the step leaves as they are: of pure
    ones, and of the images of masters.
    """
    record = evidence.record("updates_25M_h200")
    runs: dict[str, dict[int, dict]] = {}
    for run in record.data["runs"]:
        runs.setdefault(run["variant"], {})[run["seed"]] = run
    pure, base = runs["bf16-pure"], runs["bf16-master"]
    pairs = [pure[s]["validation_loss"] - base[s]["validation_loss"] for s in pure]
    late = round(LATE * record.settings["training"]["steps"])


    def untouched(of: dict[int, dict]) -> float:
        seen = [run["seen"] for run in of.values()]
        return statistics.fmean(
            one["shares"]["all"][one["steps"].index(late)] for one in seen
        )

    return pairs, late, untouched(pure), untouched(base)


def _preserves_gradients() -> Finding:
    record = evidence.reference()
    brain = comparison.differences(record, "bf16")
    ends: dict[str, list[float]] = {}
    for run in evidence.record("gradients_25M_h200").data["runs"]:
        ends.setdefault(run["variant"], []).append(run["final_loss"])
    means = {variant: statistics.fmean(losses) for variant, losses in ends.items()}
    return Finding(
        {
            "range": evidence.ends_worse(record, "fp16-unscaled", base="bf16"),
            "as low a loss as fp32's": not evidence.ends_worse(record, "bf16"),
            "digits": BRAIN.fraction_bits > HALF.fraction_bits,
        },
        "the loss ends at {unscaled:.2f} in float16 without a scale, at {scaled:.2f} with "
        "one, at {none:.2f} without float16; bf16 has no scale, and {said}",
        {
            "unscaled": means["fp16-unscaled"],
            "scaled": means["nothing"],
            "none": means["tf32"],
            "said": _beside("fp32", brain),
        },
    )


def _beside(base: str, pairs: list[float]) -> str:
    ends = differences.interval(pairs)
    if ends is None or ends[0] <= 0 <= ends[1]:
        return f"no difference from {base} is resolved"
    return f"its loss ends {'above' if ends[0] > 0 else 'below'} that of {base}"


def _converges() -> Finding:
    record = evidence.reference()
    pairs = comparison.differences(record, "bf16", base="fp16")
    dead = None in [
        run["validation_loss"] for run in comparison.runs_of(record, "fp16-pure")
    ]
    return Finding(
        {
            "weights and all else in 16 bits": evidence.ends_worse(
                record, "fp16-pure", base="bf16-pure"
            ),
            "autocast, float16 without a loss scale": evidence.ends_worse(
                record, "fp16-unscaled", base="bf16"
            ),
            "autocast, float16 with one": _is_lower(pairs),
        },
        "fp16-pure {pure}; fp16-unscaled: {unscaled}; bf16: {said}",
        {
            "said": _beside("fp16", pairs),
            "unscaled": _beside(
                "bf16", comparison.differences(record, "fp16-unscaled", base="bf16")
            ),
            "pure": "fails" if dead else "ends with a loss",
        },
    )


def _is_lower(pairs: list[float]) -> bool:
    return evidence.is_worse([-pair for pair in pairs])


def _better_balance() -> Finding:
    record = evidence.reference()
    pairs = comparison.differences(record, "bf16", base="fp16")
    faster = comparison.speed_up(record, "bf16", base="fp16") or 0.0
    reach = {fmt.name: decades(fmt) for fmt in (HALF, BRAIN)}
    return Finding(
        {
            "range": reach["bfloat16"] > reach["float16"],
            "precision": BRAIN.fraction_bits > HALF.fraction_bits,
            "no scale to watch": recipes.get("fp16").scale_loss
            and not recipes.get("bf16").scale_loss,
            "a lower loss than scaled fp16": _is_lower(pairs),
            "a faster step than scaled fp16": faster > 1,
        },
        "for it: {brain:.1f} powers of ten against {half:.1f}, and no loss scale; against "
        "it: {bits} significant bits against {more}",
        {
            "brain": reach["bfloat16"],
            "half": reach["float16"],
            "bits": BRAIN.fraction_bits + 1,
            "more": HALF.fraction_bits + 1,
        },
    )


_FLOW = Place("keep_master_weights", "flow-held")
_DECIDE = Place("train_and_compare", "decide-table")
CLAIMS = (
    Claim(
        "C06",
        "Mixed precision computes both passes with float16 weights, which gives float16 "
        "gradients; the optimizer works on float32 states, gradients and weights.",
        _dtypes,
        (_FLOW, Place("cast_automatically", "watch-table")),
        "There are two flows: 16-bit weights with float32 masters, as the notes say; and "
        "autocast, whose weights and gradients are float32.",
    ),
    Claim(
        "C07",
        "The float32 gradient is made from the float16 one by the loss scale.",
        _through_the_scale,
        (_FLOW, Place("scale_the_loss", "parity-refused")),
        "With masters the gradient is cast up and divided by the scale. Under autocast a "
        "weight's gradient is float32 before the scaler sees it.",
    ),
    Claim(
        "C15",
        "Updating 0.001 by 0.00001 loses precision in float16 and not in bfloat16.",
        _updates,
        (
            Place("keep_master_weights", "notes-table"),
            Place("keep_master_weights", "watch-table"),
            Place("keep_master_weights", "other-differences"),
        ),
        "Small updates vanish in every 16-bit weight, and in bfloat16 first: keep float32 "
        "masters.",
    ),
    Claim(
        "C17",
        "bfloat16 helps where the information in gradients must be preserved.",
        _preserves_gradients,
        (Place("scale_the_loss", "part-table"), _DECIDE),
        "bfloat16 keeps the range of gradients, so it needs no loss scale. Their digits "
        "are fewer.",
    ),
    Claim(
        "C18",
        "bfloat16 strikes the better balance between precision and range.",
        _better_balance,
        (
            Place("read_the_bits", "range-figure"),
            Place("read_the_bits", "precision-verdict"),
            _DECIDE,
        ),
        "Take bfloat16 for its range, and know what it costs in digits.",
        judgement=True,
    ),
    Claim(
        "C20",
        "Mixed precision is the mixture of float32 and float16.",
        _mixes,
        (Place("train_and_compare", "recipes-list"),),
        "Mixed precision is two or more formats in one training step; which ones is a "
        "choice.",
    ),
    Claim(
        "C25",
        "bfloat16 can lead to better convergence.",
        _converges,
        (_DECIDE,),
        "bfloat16 converges where float16 leaves its range. Where a loss scale keeps "
        "float16 inside, look at the interval.",
    ),
)

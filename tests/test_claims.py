"""The notes' statements: verdicts follow from cases, cases from what can be checked."""

import re
from dataclasses import replace
from string import Formatter

import ml_dtypes
import numpy as np
import pytest
import torch

from mpteach import claims, course, editions, records
from mpteach.claims import Claim, Finding, Place, bits, evidence, memory, speed, steps
from mpteach.errors import InputError
from mpteach.exercises.claims import verdict_of
from mpteach.hardware import peaks
from mpteach.records import Record
from tests.notebook_cells import Notebook
from tests.prose_numbers import is_shown, numbers, typed_numbers

CLAIMS = {claim.id: claim for claim in claims.CLAIMS}
each_claim = pytest.mark.parametrize("claim", claims.CLAIMS, ids=list(CLAIMS))


@pytest.mark.parametrize(
    ("holds", "plain", "judged"),
    [
        ([True], "true", "true"),
        ([False], "false", "false"),
        ([True, True], "true", "true"),
        ([False, False], "false", "false"),
        ([True, False], "true with a scope", "a judgement"),
        ([False, True], "misleading", "a judgement"),
        ([False, True, True], "misleading", "a judgement"),
        ([True, False, False], "true with a scope", "a judgement"),
    ],
)
def test_the_rule(holds, plain, judged):
    cases = {str(place): one for place, one in enumerate(holds)}
    assert claims.verdict(cases) == plain
    assert claims.verdict(cases, judgement=True) == judged
    assert {plain, judged} <= set(claims.VERDICTS)
    assert verdict_of(holds) == plain  # that of the exercise


def test_a_verdict_needs_a_case():
    with pytest.raises(InputError, match="give one at least"):
        claims.verdict({})


def test_a_claim_is_judged_once_and_by_its_cases():
    asked = []

    def judge():
        asked.append(1)
        return Finding({"a": True, "b": False}, "{x:.1f} of {n}", {"x": 0.25, "n": 3})

    claim = Claim("C00", "said", judge, ())
    assert claim.verdict == claim.verdict == "true with a scope"
    assert claim.finding.figure == "0.2 of 3" and asked == [1]


def test_the_ids_are_the_notes_statements_in_order():
    assert list(CLAIMS) == [f"C{n:02}" for n in range(1, len(CLAIMS) + 1)]
    assert len(CLAIMS) >= 18
    assert len({claim.statement for claim in claims.CLAIMS}) == len(CLAIMS)


@each_claim
def test_every_number_of_a_figure_is_computed(claim):
    plain = " ".join(text for text, *_ in Formatter().parse(claim.finding.text))
    typed = {number.text for number in numbers(plain.replace("0x", ""))}
    # The notes' own example, the place of eps, and the base of powers.
    assert typed <= {"0.001", "0.00001", "1", "2"}, typed


@each_claim
def test_what_is_not_true_has_something_to_remember_in_its_place(claim):
    assert claim.instead or claim.verdict == "true"
    assert all(isinstance(one, bool) for one in claim.finding.cases.values())
    typed = {number.text for number in typed_numbers(claim.instead)}
    assert typed <= {"0.001", "0.00001"}  # the notes' example


def outputs(place: Place) -> str:
    chapter = claims.chapter_of(place)
    notebook = Notebook(chapter.path.name, editions.read(chapter.path))
    (cell,) = [one for one in notebook.code if one.raw["id"] == place.cell]
    assert not cell.is_live, f"{place} measures anew in every run"
    return cell.printed


@each_claim
def test_the_cells_named_exist_and_show_the_figure(claim):
    shown = "\n".join(outputs(place) for place in claim.places)
    found = list(numbers(claim.finding.figure))
    printed = list(numbers(shown))
    missing = [one.text for one in found if not is_shown(one, printed)]
    assert not missing, f"{claim.places} do not show {missing}"
    words = set(re.findall(r"[\w-]+", claim.finding.figure))
    assert found or words & set(re.findall(r"[\w-]+", shown))


def summaries():
    """Yield chapter, id and verdict of each row in the chapters' tables of verdicts."""
    words = {"true of": "true with a scope", **{word: word for word in claims.VERDICTS}}
    longest = sorted(words, key=len, reverse=True)
    for chapter in course.chapters():
        text = "\n".join(
            cell["source"] for cell in editions.read(chapter.path)["cells"]
        )
        for name, said in re.findall(r"^\| (C\d\d): .*? \| (.*?) \|$", text, re.M):
            word = next((word for word in longest if said.startswith(word)), None)
            if word:
                yield chapter.name, name, words[word]


def test_the_chapters_come_to_the_same_verdicts():
    """Where this fails, data have changed: read that chapter's summary again."""
    found = list(summaries())
    assert len(found) > 12
    for chapter, name, verdict in found:
        assert CLAIMS[name].verdict == verdict, f"{chapter} has {name} {verdict}"


def test_a_cell_that_is_not_there_is_found():
    with pytest.raises(ValueError, match="not enough values"):
        outputs(Place("round_and_lose", "no-such-cell"))
    with pytest.raises(InputError, match="no chapter is called 'nowhere'"):
        outputs(Place("nowhere", "cell"))


def test_get_finds_a_claim_or_lists_them():
    assert claims.get("C12") is CLAIMS["C12"]
    with pytest.raises(InputError, match="'C99': choose from C01, C02"):
        claims.get("C99")


def test_the_claims_by_verdict_are_all_of_them():
    found = claims.by_verdict()
    assert list(found) == [word for word in claims.VERDICTS if word in found]
    for word, ones in found.items():
        assert ones == [one for one in claims.CLAIMS if one.verdict == word]
    assert sum(map(len, found.values())) == len(CLAIMS)


def test_the_table_has_a_row_for_each_claim():
    lines = repr(claims.Table(claims.BITS)).splitlines()
    assert len(lines) == 2 + len(claims.BITS) and set(lines[1]) == set("| -")
    for line, claim in zip(lines[2:], claims.BITS, strict=True):
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        assert cells[:4] == [
            *(claim.id, claim.statement, f"**{claim.verdict}**", claim.finding.figure),
        ]
        assert cells[4].count("](") == len(claim.places)
    address = "(02_round_and_lose.ipynb#cell-id=notes-exact)"
    assert f"[02, notes-exact]{address}" in repr(claims.Table([CLAIMS["C12"]]))


class TestBits:
    """numpy's float16 and ml_dtypes' bfloat16 are what the formats are held against."""

    def test_stored_numbers(self):
        half, brain = np.float16, ml_dtypes.bfloat16
        assert CLAIMS["C12"].finding.numbers["value"] == float(half(0.001))
        assert CLAIMS["C13"].finding.numbers["value"] == float(half(0.00001))
        assert CLAIMS["C14"].finding.numbers["value"] == float(brain(0.001))
        code = CLAIMS["C12"].finding.numbers["code"]
        assert code == int(half(0.001).view(np.uint16))
        assert float(half(0.00001)) == float(brain(0.00001))
        verdicts = [CLAIMS[name].verdict for name in ("C12", "C13", "C14")]
        assert verdicts == ["false"] * 3

    def test_a_right_statement_about_a_stored_number_would_be_true(self, monkeypatch):
        monkeypatch.setattr(bits, "CLAIMED", 0.001)
        assert claims.verdict(bits._weight_stored().cases) == "true"
        monkeypatch.setattr(bits, "GRADIENT", 2.0**-17)
        assert claims.verdict(bits._gradient_stored().cases) == "true"

    def test_the_reach_of_both_formats(self):
        found = CLAIMS["C11"].finding.numbers
        with np.errstate(over="ignore"):
            assert np.float16(found["high"]) == found["top"] == np.inf
        assert np.nextafter(np.float32(found["high"]), 0).astype(np.float16) == 65504
        assert np.float16(2.0 ** found["low"]) == found["bottom"] == 0
        assert CLAIMS["C11"].verdict == "false"

    def test_layouts(self):
        half, brain = np.finfo(np.float16), ml_dtypes.finfo(ml_dtypes.bfloat16)
        found = CLAIMS["C09"].finding
        assert found.cases == {"the range is wide": False, "the bits": True}
        assert (found.numbers["low"], found.numbers["high"]) == (half.tiny, half.max)
        numbers_ = CLAIMS["C10"].finding.numbers
        assert (numbers_["half"], numbers_["brain"]) == (
            half.nmant + 1,
            brain.nmant + 1,
        )
        assert CLAIMS["C10"].verdict == CLAIMS["C09"].verdict == "misleading"

    def test_the_crossover_is_where_the_spacings_meet(self):
        end = CLAIMS["C10"].finding.numbers["end"]
        for power, finer in ((end - 1, True), (end, False), (0, False)):
            gap = float(np.spacing(np.float16(2.0**power)))
            brain = ml_dtypes.bfloat16(2.0**power)
            assert (
                float(np.nextafter(brain, ml_dtypes.bfloat16(4))) - 2.0**power < gap
            ) == (finer)

    def test_both_numbers_of_the_example_stay_almost_unchanged(self, monkeypatch):
        kept = float(ml_dtypes.bfloat16(0.001))
        found = CLAIMS["C24"].finding.numbers
        assert found["weight"] == pytest.approx(100 * (kept / 0.001 - 1))
        assert CLAIMS["C24"].verdict == "true"
        monkeypatch.setattr(bits, "ALMOST", 0.0001)
        assert claims.verdict(bits._brain_keeps_almost().cases) == "false"

    def test_bytes_are_torchs(self):
        found = CLAIMS["C01"].finding.numbers
        assert found == {"half": torch.half.itemsize, "single": torch.float.itemsize}
        assert CLAIMS["C01"].verdict == "true"

    def test_precision_at_the_ends_of_float16(self):
        found = CLAIMS["C19"].finding.numbers
        assert found["one"] == found["large"] == pytest.approx(100 / 2**11, rel=1e-2)
        gap = float(np.spacing(np.float16(2.0**-20)))
        assert found["small"] == pytest.approx(100 * gap / 2 / (2.0**-20 + gap / 2))


class TestUpdates:
    @pytest.mark.parametrize("rate", [1, 0.1, 0.01])
    @pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
    def test_a_step_is_one_rounding_of_exact_arithmetic(self, dtype, rate):
        weight, gradient = dtype(0.001), dtype(0.00001)
        after = float(dtype(np.float32(float(weight) - rate * float(gradient))))
        found = steps.step(np.dtype(dtype).name, rate)
        assert found["off"] == pytest.approx(100 * (after / (0.001 - rate * 1e-5) - 1))
        moved = float(weight) - after
        assert found["missing"] == pytest.approx(abs(moved / (rate * 1e-5) - 1))

    def test_a_training_that_bfloat16_does_not_lose_changes_the_verdict(
        self, monkeypatch
    ):
        assert CLAIMS["C15"].verdict == "false"
        monkeypatch.setattr(evidence, "is_worse", lambda pairs: False)
        assert claims.verdict(steps._updates().cases) == "misleading"


def changed(record: Record, change) -> Record:
    """Return the record with `change(run)` put into each of its runs."""
    runs = [run | change(run) for run in record.data["runs"]]
    return replace(record, data=record.data | {"runs": runs})


@pytest.fixture
def comparisons(monkeypatch):
    """Return what puts other comparisons in the place of the committed ones."""
    real = evidence.comparisons()

    def put(change, sizes=None):
        found = {size: changed(one, change) for size, one in real.items()}
        kept = {size: found[size] for size in sizes or found}
        for which in ("comparisons", "uncompiled"):
            monkeypatch.setattr(evidence, which, lambda: kept)

    return put


class TestRecords:
    """New records decide anew: what they say changes cases, figures and verdicts."""

    def test_all_committed_comparisons_are_read_the_largest_first(self):
        found = evidence.comparisons()
        stems = {path.stem for path in evidence.RECORDS.glob("comparison_*.json")}
        assert {stem.split("_")[1] for stem in stems} == set(found)
        counts = [evidence.weights(size) for size in found]
        assert counts == sorted(counts, reverse=True)
        assert evidence.uncompiled()["25M"] == records.committed("comparison_25M_h200")
        assert found["25M"] == records.committed("comparison_25M_h100")

    def test_a_model_is_counted_as_torch_builds_it(self):
        from mpteach import gpt

        model = gpt.GPT(gpt.config("tiny"))
        assert evidence.weights("tiny") == sum(p.numel() for p in model.parameters())

    def test_fp16_that_is_always_faster_is_true(self, comparisons):
        comparisons(lambda run: dict.fromkeys(SPEEDS, 5.0 if is_fp16(run) else 1.0))
        assert claims.verdict(speed._speeds_up().cases) == "true"
        comparisons(lambda run: dict.fromkeys(SPEEDS, 0.5 if is_fp16(run) else 1.0))
        assert claims.verdict(speed._speeds_up().cases) == "false"

    def test_a_comparison_without_fp32_is_held_against_its_own_base(self, comparisons):
        comparisons(lambda run: {"recipe": RENAMED.get(run["recipe"], run["recipe"])})
        with pytest.raises(InputError, match="has fp32 runs"):
            evidence.reference()
        cases = speed.ratios()
        assert not any(
            "next to float32" in name for name in cases if "training" in name
        )

    def test_a_further_size_joins_the_cases(self, tmp_path, monkeypatch):
        """Another model, without fp32 and with recipes that the first ones lack."""
        base = records.committed("comparison_25M_h200")
        other = {"fp32": "fp8-head"}
        runs = [
            run | {"recipe": other.get(run["recipe"], run["recipe"])}
            for run in base.data["runs"]
        ]
        large = replace(base, settings=base.settings | {"size": "124M"})
        replace(large, data=base.data | {"runs": runs}).save(
            tmp_path / "comparison_124M_h200.json"
        )
        base.save(tmp_path / "comparison_25M_h200.json")
        monkeypatch.setattr(evidence, "RECORDS", tmp_path)
        evidence.comparisons.cache_clear(), evidence.uncompiled.cache_clear()
        try:
            assert list(evidence.comparisons()) == ["124M", "25M"]
            assert evidence.reference() == base
            (name,) = [one for one in speed.ratios() if "124M" in one]
            assert name.endswith("next to TF32")
            cases = speed._speeds_up().cases
            said = ("training, 124M, next to tf32", "forward pass, 124M, next to tf32")
            assert tuple(cases)[:2] == said
            assert "25M: " in speed._throughput().figure
            assert steps._preserves_gradients().cases["range"]
        finally:
            evidence.comparisons.cache_clear(), evidence.uncompiled.cache_clear()

    def test_the_claimed_factors_are_those_of_the_records(self):
        found = speed.ratios()
        then = peaks.get("V100")
        assert next(iter(found.values())) == then.float16 / then.float32
        runs = evidence.uncompiled()["25M"].data["runs"]
        by = {(run["recipe"], run["seed"]): run["tokens_per_second"] for run in runs}
        seeds = evidence.uncompiled()["25M"].seeds
        median = np.median([by["fp16", s] / by["fp32", s] for s in seeds])
        (name,) = [one for one in found if "training 25M, next to float32" in one]
        assert found[name] == pytest.approx(median)

    def test_a_dead_unscaled_fp16_still_needs_its_scale(self, comparisons):
        def dead(run):
            gone = run["recipe"] == "fp16-unscaled"
            return {"validation_loss": None} if gone else {}

        comparisons(dead)
        assert steps._preserves_gradients().cases["range"]

    def test_a_bf16_that_ends_worse_is_told_and_can_be_false(self, comparisons):
        def worse(run):
            added = 1.0 if run["recipe"] == "bf16" else 0.0
            loss = run["validation_loss"]
            return {"validation_loss": None if loss is None else loss + added}

        comparisons(worse)
        found = steps._preserves_gradients()
        assert not found.cases["as low a loss as fp32's"]
        assert "its loss ends above that of fp32" in found.figure
        comparisons(lambda run: {"validation_loss": 1.0 + (run["recipe"] == "bf16")})
        assert claims.verdict(steps._preserves_gradients().cases) == "false"
        assert claims.verdict(steps._better_balance().cases, True) == "a judgement"

    def test_convergence_is_better_where_float16_ends_worse(self, comparisons):
        assert CLAIMS["C25"].finding.cases["weights and all else in 16 bits"]
        comparisons(
            lambda run: {"validation_loss": 1 - run["recipe"].startswith("bf16") / 2}
        )
        found = steps._converges()
        assert claims.verdict(found.cases) == "true"
        assert "its loss ends below that of fp16" in found.figure
        comparisons(lambda run: {"validation_loss": 1.0})
        found = steps._converges()
        assert claims.verdict(found.cases) == "false"
        assert found.figure.count("no difference") == 2
        assert "fp16-pure ends with a loss" in found.figure

    def test_the_one_processor_that_is_no_gpu_is_no_case(self):
        assert speed.CPU in peaks.PROCESSORS
        assert speed.CPU not in CLAIMS["C22"].finding.cases

    def test_the_largest_batch_is_the_last_that_fits(self):
        for recipe in ("fp32", "amp-bf16", "pure-bf16"):
            batch = memory.largest_batch(recipe)
            sizes = {
                setting.batch: row["reserved_peak"] + row["outside_allocator"]
                for setting, row in evidence.rows().items()
                if setting
                == replace(setting, model="gpt2", sequence=1024, recipe=recipe)
                and setting == memory.Setting("gpt2", setting.batch, recipe=recipe)
            }
            assert sizes[batch] <= 24e9
            assert all(size > 24e9 for one, size in sizes.items() if one > batch)

    def test_peaks_that_halve_make_a_true_statement(self, monkeypatch):
        monkeypatch.setattr(evidence, "peak", lambda s: 4 if s.recipe == "fp32" else 2)
        assert claims.verdict(memory._half_the_memory().cases) == "true"

    def test_a_copy_that_gains_nothing_makes_a_false_one(self, monkeypatch):
        monkeypatch.setattr(evidence, "seconds", lambda *_: 1.0)
        assert claims.verdict(memory._less_bandwidth().cases) == "false"

    def test_worse_is_above_zero_with_its_interval(self):
        assert evidence.is_worse([0.1, 0.11, 0.12])
        assert not evidence.is_worse([-0.1, 0.11, 0.12])
        assert not evidence.is_worse([0.1]) and not evidence.is_worse([])

    def test_what_a_loss_is_next_to_another(self):
        unresolved = "no difference from fp32 is resolved"
        for pairs in ([], [0.5], [-0.1, 0.11, 0.12]):
            assert steps._beside("fp32", pairs) == unresolved
        assert "above that of fp32" in steps._beside("fp32", [0.1, 0.11, 0.12])
        assert "below that of fp32" in steps._beside("fp32", [-0.1, -0.11, -0.12])


SPEEDS = ("tokens_per_second", "forward_tokens_per_second")
RENAMED = {"fp32": "bf16-pure", "bf16-pure": "fp16-pure"}


def is_fp16(run) -> bool:
    return run["recipe"] == "fp16"

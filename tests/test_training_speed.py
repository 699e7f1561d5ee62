"""Timed steps: the trainer's own, in turns, and a row for all that can happen."""

import weakref
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mpteach import data, gpt, recipes, records, training, training_speed
from mpteach.errors import InputError
from mpteach.runs import Settings
from tests.small import CONFIG, CORPUS

TOY = replace(CONFIG, hidden=32)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A size "toy", every recipe available, one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setitem(gpt.SIZES, "toy", TOY)
    monkeypatch.setattr(recipes, "unavailable", lambda recipe, device: "")
    monkeypatch.setattr(training_speed.data, "standard_library", lambda: CORPUS)
    yield
    torch.set_num_threads(before)


def begun(*names, sizes=("toy",), batches=(2,), rounds=2, profiled=False, **more):
    return training_speed.begin(
        sizes, batches, names, "cpu", "test", rounds=rounds, profiled=profiled, **more
    )


# What is timed


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_steps_are_the_trainers(name, monkeypatch):
    trial = training_speed.Trial(begun().settings, "toy", 4, name)
    monkeypatch.setattr(training.Batches, "draw", lambda self: trial.batch)
    torch.manual_seed(training_speed.SEED)
    model = gpt.GPT(TOY)
    settings = Settings(steps=6, batch=4, warmup_steps=0, patience=6)
    training.train(model, CORPUS, recipes.get(name), settings, seed=0)
    for _ in range(3):
        trial.step()
    own = trial.trainer.model.parameters()
    for ours, theirs in zip(own, model.parameters(), strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours.nan_to_num(), theirs.nan_to_num())


def test_products_and_threads_are_as_they_should_be_and_then_as_before(monkeypatch):
    seen, learn = [], training.Trainer.learn

    def noted(trainer, *batch):
        precision = torch.get_float32_matmul_precision()
        seen.append((trainer.recipe.name, precision, torch.get_num_threads()))
        return learn(trainer, *batch)

    monkeypatch.setattr(training.Trainer, "learn", noted)
    torch.set_float32_matmul_precision("medium")
    torch.set_num_threads(2)
    try:
        training_speed.run(begun("tf32"))
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.get_num_threads() == 2
    finally:
        torch.set_float32_matmul_precision("highest")
    assert set(seen) == {("bf16", "highest", 1), ("tf32", "high", 1)}


@pytest.mark.parametrize("config", [TOY, replace(TOY, layers=3, sequence=32)])
def test_flop_are_those_of_torchs_counter_and_of_parameters_outside_of_products(config):
    model, batch = gpt.GPT(config), 3
    tokens = torch.zeros(batch, config.sequence, dtype=torch.long)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        training.cross_entropy(model(tokens), tokens).backward()
    # 6 N takes biases and norms for factors too, which they are not.
    vectors = sum(one.numel() for one in model.parameters() if one.ndim == 1)
    extra = 6 * vectors * tokens.numel()
    ours = training_speed.step_flop(model, batch)
    assert ours == counter.get_total_flops() + extra


def test_flop_of_the_124m_model_by_hand():
    with torch.device("meta"):
        model = gpt.GPT(gpt.config("124M"))
    hidden, layers, vocabulary, length = 768, 12, 50304, 1024
    block = 12 * hidden**2 + 13 * hidden  # weights, then biases and norms
    parameters = vocabulary * hidden + layers * block + 2 * hidden
    token = 6 * parameters + 12 * layers * hidden * length
    assert training_speed.step_flop(model, 32) == 32 * length * token


# How it is timed


def test_rounds_take_turns_and_nothing_is_read_inside_one():
    said, moment = [], [0.0]

    def work(name, seconds):
        def call():
            said.append(name)
            moment[0] += seconds

        return call

    def now():
        said.append("clock")
        return moment[0]

    calls = work("base", 3.0), work("own", 2.0)
    pairs = training_speed.interleaved(calls, 2, 3, now)
    one_round = ["clock", *["base"] * 3, "clock", "clock", *["own"] * 3, "clock"]
    assert said == 2 * one_round and pairs == [[3.0, 2.0], [3.0, 2.0]]


def test_a_moment_is_only_read_when_all_is_done():
    class Moment:
        left = 8  # two readings for each of two calls in two rounds

        def __init__(self):
            Moment.left -= 1

        def __sub__(self, earlier):
            assert Moment.left == 0
            return 5.0

    pairs = training_speed.interleaved([lambda: None] * 2, 2, 5, Moment)
    assert pairs == [[1.0, 1.0], [1.0, 1.0]]


def test_a_row_is_the_median_over_pairs(monkeypatch):
    pairs = [[0.5, 0.25], [0.75, 0.25], [0.625, 0.5]]
    monkeypatch.setattr(training_speed, "interleaved", lambda *_: pairs)
    monkeypatch.setattr(training_speed, "highest_rates", lambda gpu: {"float32": 1e9})
    base, row = training_speed.run(begun("fp32")).data["rows"]
    assert row["step_ms"] == 250 and row["baseline_ms"] == 625
    assert (row["speed_up"], row["low"], row["high"]) == (2, 1.25, 3)
    flop = training_speed.step_flop(gpt.GPT(TOY), 2)
    assert row["model_tflops"] == pytest.approx(flop / 0.25 / 1e12)
    assert row["ceiling_share"] == pytest.approx(flop / 0.25 / 1e9)
    assert base["ceiling_share"] is None  # no rate is known of bfloat16


def test_the_baselines_first_steps_are_those_before_anything_was_compiled(monkeypatch):
    steps = iter(range(9))  # three for each of three models
    monkeypatch.setattr(training_speed.Trial, "_step_seconds", lambda _: next(steps))
    monkeypatch.setattr(training_speed, "interleaved", lambda *_: [[1.0, 1.0]])
    rows = training_speed.run(begun("fp32")).data["rows"]
    first = [(row["first_step_s"], row["second_step_s"]) for row in rows]
    assert first == [(0, 1), (6, 7)]


def test_the_ceiling_is_the_best_product_on_this_gpu():
    rates = training_speed.highest_rates("NVIDIA H200")
    rows = records.committed("ceilings_h200").data["rows"]
    for dtype, rate in rates.items():
        every = [
            row["flop"] / row["seconds"]
            for row in rows
            if (row["operation"], row["dtype"]) == ("product", dtype)
        ]
        assert rate == max(every)
    assert {recipe.products for recipe in recipes.RECIPES.values()} <= rates.keys()
    assert training_speed.highest_rates("NVIDIA H100") == {}
    assert training_speed.highest_rates(None) == {}


def test_a_kernel_of_the_update_is_the_optimizers_whatever_its_name(monkeypatch):
    def kernels(work, device):
        work()
        learns = work.__name__ == "learn"
        return [("nvjet_1", 4.0), ("Memset", 1.0)] if learns else [("nvjet_2", 2.0)]

    monkeypatch.setattr(training_speed, "kernels", kernels)
    for row in training_speed.run(begun("fp32", profiled=True)).data["rows"]:
        expected = {"products": 4.0, "attention": 0.0, "elementwise": 1.0}
        assert row["kernel_ms"] == expected | {"optimizer": 2.0, "other": 0.0}
    monkeypatch.setattr(training_speed, "kernels", lambda work, device: [])
    (row,) = training_speed.run(begun(profiled=True)).data["rows"]
    assert row["kernel_ms"] is None


def test_a_real_profile_has_time_in_every_place():
    (row,) = training_speed.run(begun(profiled=True)).data["rows"]
    assert row["kernel_ms"].keys() == set(training_speed.PLACES)
    assert all(ms > 0 for ms in row["kernel_ms"].values())


# All that can happen


def test_a_row_for_each_shape_and_recipe_the_baseline_first():
    record = begun("fp32", "fp8-delayed", "fp32", batches=(2, 4, 2))
    kept, told = [], []
    done = training_speed.run(record, kept.append, told.append)
    rows = done.data["rows"]
    names = ["bf16", "fp32", "fp8-delayed"]
    found = [(row["size"], row["batch"], row["recipe"]) for row in rows]
    assert found == [("toy", batch, name) for batch in (2, 4) for name in names]
    assert told == rows
    assert [len(one.data["rows"]) for one in kept] == [1, 2, 3, 4, 5, 6]
    assert all(row["reason"] == "" and row["peak_bytes"] is None for row in rows)
    assert all(row["low"] <= row["speed_up"] <= row["high"] for row in rows)
    lines = training_speed.table(done).splitlines()
    assert lines[0] == training_speed.HEAD and len(lines) == 7
    assert {len(line) for line in lines} == {len(training_speed.HEAD)}


def test_a_dropped_recipe_is_gone_before_the_next_is_built(monkeypatch):
    alive, most = weakref.WeakSet(), []
    make = training.Trainer.__init__

    def noted(trainer, model, *arguments):
        most.append(len(alive))
        make(trainer, model, *arguments)
        model.itself = [model]  # as a compiled one does
        alive.add(model)

    monkeypatch.setattr(training.Trainer, "__init__", noted)
    training_speed.run(begun("fp32", "bf16-master", "fp8-delayed", batches=(2, 4)))
    # The baseline alone, and nothing when the next shape's is built.
    assert most == [0, 1, 1, 1, 1] * 2


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
    ],
)
def test_a_recipe_out_of_memory_is_a_row_and_the_next_is_timed(monkeypatch, error):
    fails = {"fp32"}
    learn = training.Trainer.learn

    def short(trainer, *batch):
        if trainer.recipe.name in fails:
            raise error
        return learn(trainer, *batch)

    monkeypatch.setattr(training.Trainer, "learn", short)
    done = training_speed.run(begun("fp32", "bf16-pure")).data["rows"]
    assert [row["reason"] for row in done] == ["", "out of memory", ""]
    assert "step_ms" not in done[1] and done[2]["step_ms"] > 0
    assert training_speed.line(done[1]).endswith("fp32            out of memory")
    fails |= {"bf16"}
    done = training_speed.run(begun("fp32", "bf16-pure")).data["rows"]
    reason = "bf16, the baseline: out of memory"
    assert [row["reason"] for row in done] == [reason] * 3


def test_another_error_is_not_hidden(monkeypatch):
    def broken(trainer, *batch):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(training.Trainer, "learn", broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        training_speed.run(begun())


def test_what_the_device_lacks_is_a_row(monkeypatch):
    def unavailable(recipe, device):
        return f"no products of {recipe.name}" if recipe.fp8 else ""

    monkeypatch.setattr(recipes, "unavailable", unavailable)
    done = training_speed.run(begun("fp8", "fp32")).data["rows"]
    assert [row["reason"] for row in done] == ["", "no products of fp8", ""]


def test_code_that_is_no_longer_compiled_is_an_error(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda work, **options: work)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda model, **options: None)
    strict = "fail_on_recompile_limit_hit"
    limits = {"recompile_limit": 8, strict: False}
    with torch._dynamo.config.patch(limits):
        rows = training_speed.run(begun("fp32", compiled="blocks")).data["rows"]
        assert getattr(torch._dynamo.config, strict)
        assert torch._dynamo.config.recompile_limit >= 4 * len(recipes.RECIPES)
    assert [row["reason"] for row in rows] == ["", ""]


def test_what_was_compiled_for_one_shape_is_forgotten_before_the_next(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: calls.append("reset"))
    training_speed.run(
        begun("fp32", batches=(2, 3)), on_row=lambda row: calls.append(row["batch"])
    )
    assert calls == ["reset", 2, 2, "reset", 3, 3]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"sizes": ["9B"]}, "unknown size '9B': choose from tiny"),
        ({"batches": [0]}, "batch was 0: it must be a whole number"),
        ({"rounds": 0}, "rounds was 0"),
        ({"compiled": "all"}, "compiled was 'all': give 'blocks'"),
        ({"sizes": []}, "no size was given: name one, such as 'tiny'"),
        ({"batches": []}, "no batch was given: name one, such as 8"),
    ],
)
def test_bad_input_is_refused(more, said):
    with pytest.raises(InputError, match=said):
        begun("fp32", **more)


def test_an_unknown_recipe_or_device_is_refused():
    with pytest.raises(InputError, match="unknown recipe 'fp7'"):
        begun("fp7")
    with pytest.raises(InputError, match="unknown device 'tpu'"):
        training_speed.begin(["toy"], [2], ["fp32"], "tpu", "test")


def test_a_device_without_the_baselines_products_is_refused(monkeypatch):
    monkeypatch.setattr(recipes, "unavailable", lambda one, device: f"{one.name}: none")
    with pytest.raises(InputError, match="bf16: none, and all are timed beside it"):
        begun("fp32")


def test_a_model_larger_than_the_memory_of_a_cpu_is_refused(monkeypatch):
    parameters = sum(one.numel() for one in gpt.GPT(TOY).parameters())
    free = [32 * parameters - 1]
    monkeypatch.setattr(training_speed.hardware, "free_memory_bytes", lambda: free[0])
    with pytest.raises(InputError, match="size toy needs at least .* smaller --sizes"):
        begun("fp32")
    for enough in (32 * parameters, None):
        free[0] = enough
        assert begun("fp32").settings["sizes"] == ["toy"]


def test_without_a_compiler_compiling_is_refused(monkeypatch):
    def missing(work):
        raise ValueError("No working C++ compiler found\nlong story")

    monkeypatch.setattr(torch, "compile", missing)
    said = r"this cpu \(No working C\+\+ compiler found\)"
    with pytest.raises(InputError, match=said):
        begun("fp32", compiled="whole")

"""A study keeps a run for each variant and seed, goes on, and says what it found."""

import pytest
import torch

from mpteach import cli, data, epsilons, gpt, proofs, records, studies, updates
from mpteach.errors import InputError
from mpteach.runs import Settings

TEXT = data.Corpus("letters", bytes(range(32, 127)) * 40)
SETTINGS = Settings(
    steps=3, batch=2, warmup_steps=1, validation_batches=1, gradient_every=2
)


def begun(name: str) -> records.Record:
    return studies.begin(name, "tiny", SETTINGS, TEXT, "cpu", f"mpteach study {name}")


@pytest.mark.parametrize("name", studies.STUDIES)
def test_a_study_runs_each_variant_once_and_goes_on(name, tmp_path):
    path, calls = tmp_path / "record.json", []
    record = studies.run(
        begun(name), [0], TEXT, path, lambda variant, seed, step: calls.append(variant)
    )
    variants = studies.STUDIES[name].variants("cpu")
    assert [run["variant"] for run in record.data["runs"]] == variants
    lost = {"epsilon": 1, "collapse": 2}.get(name, 0)  # steps, by runs that met NaN
    assert len(calls) == 3 * len(variants) - lost
    assert not studies.missing(record, [0])
    assert [run["variant"] for run in records.load(path).data["runs"]] == variants
    assert len(studies.missing(record, [0, 1])) == len(variants)
    assert all(variant in studies.table(record) for variant in variants)


def test_updates_by_layer_are_counted_at_the_sampled_steps(tmp_path):
    record = studies.run(begun("updates"), [0], TEXT, tmp_path / "r.json")
    by_name = {run["variant"]: run["seen"] for run in record.data["runs"]}
    assert by_name["fp32"]["steps"] == [1, 2]
    assert set(by_name["fp32"]["shares"]) == {"all", *names_of_weights()}
    full, pure = (by_name[name]["shares"]["all"][1] for name in ("fp32", "bf16-pure"))
    assert full < 0.001 and pure > 0.01


def test_epsilon_counts_second_moments_that_are_zero(tmp_path):
    record = studies.run(begun("epsilon"), [0], TEXT, tmp_path / "r.json")
    runs = {run["variant"]: run for run in record.data["runs"]}
    for run in runs.values():
        seen = run["seen"]
        assert len(seen["second_moment_zero"]) == len(seen["steps"]) >= 1
    zeros = {name: run["seen"]["second_moment_zero"][0] for name, run in runs.items()}
    assert runs["fp16-pure"]["non_finite_step"] == 2 and zeros["fp16-pure"] > 0.1
    assert runs["fp16-eps"]["non_finite_step"] is None
    assert zeros["fp16-eps"] == zeros["fp16-pure"] == zeros["fp16-fused"]
    assert zeros["fp16-master"] == zeros["fp16-nearest"] == zeros["fp16"] == 0
    assert len(runs["fp16-master"]["loss_scale"]) >= 1


def test_a_second_moment_counts_as_zero_only_beside_a_gradient():
    weights = [torch.zeros(4, dtype=torch.float16, requires_grad=True)]
    optimizer = torch.optim.AdamW(weights, eps=1e-3)
    weights[0].grad = torch.tensor([0.0, 1e-4, 0.01, 1.0], dtype=torch.float16)
    optimizer.step()
    # 0.001 * 1e-8 and 0.001 * 1e-4 against the smallest float16, 6e-8.
    assert epsilons.second_moment_zero(optimizer) == round(1 / 3, 4)


def names_of_weights() -> list[str]:
    return [name for name, _ in gpt.GPT(gpt.config("tiny")).named_parameters()]


def test_a_share_of_the_whole_weighs_layers_by_their_size():
    model = torch.nn.Linear(9, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    observer = updates.UpdateObserver(model, optimizer, [1])
    model.weight.grad = torch.full((1, 9), 1e-30)
    model.bias.grad = torch.ones(1)
    optimizer.step()
    assert observer.shares == {"all": [0.9], "weight": [1.0], "bias": [0.0]}


def test_a_layer_without_a_gradient_loses_no_update():
    model = torch.nn.Sequential(torch.nn.Linear(9, 1), torch.nn.Linear(9, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    observer = updates.UpdateObserver(model, optimizer, [1])
    model[0](torch.ones(1, 9)).sum().backward()
    optimizer.step()
    shares = [observer.shares[name] for name in ("0.weight", "1.weight", "all")]
    assert shares == [[1.0], [0.0], [0.5]]


def test_the_command_names_every_study(capsys):
    with pytest.raises(SystemExit):
        cli.main(["study", "--help"])
    said = capsys.readouterr().out
    assert all(name in said for name in studies.STUDIES)


def test_an_unknown_study_is_told(capsys, tmp_path):
    with pytest.raises(InputError, match="unknown study 'x': choose from gradients"):
        begun("x")
    out = str(tmp_path / "r.json")
    assert cli.main(["study", "x", "--out", out, "--size", "tiny"]) == 2
    assert "unknown study 'x'" in capsys.readouterr().err
    assert cli.main(["study", "updates", "--out", out, "--final-rate", "2"]) == 2
    assert "final_rate was 2.0" in capsys.readouterr().err


def test_the_learning_rate_ends_where_it_is_told():
    settings = Settings(steps=100, warmup_steps=10, final_rate=0.25)
    rates = [settings.rate(step) / settings.learning_rate for step in (5, 10, 55, 100)]
    assert rates == pytest.approx([0.5, 1.0, 0.625, 0.25])


def test_parity_is_kept_and_goes_on(tmp_path, capsys):
    out = tmp_path / "parity.json"
    words = ["parity", "--device", "cpu", "--steps", "80", "--out", str(out)]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert "loss scalers: 80 steps, mismatches {}" in said and "F.bilinear" in said
    record = records.load(out)
    assert not proofs.missing(record) and len(record.data["probe"]) == 2
    assert cli.main(["parity", "--steps", "0", "--out", str(out)]) == 2

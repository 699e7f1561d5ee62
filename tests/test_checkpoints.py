"""A checkpoint is whole or refused, is of this run or refused, and never runs code."""

import hashlib
import io
import os
import pickle
import random
import resource
from dataclasses import replace

import pytest
import torch
from torch import nn

from mpteach import comparison, files, gpt, hardware
from mpteach.checkpoints import Checkpoint, tidy
from mpteach.data import Corpus
from mpteach.errors import InputError
from mpteach.runs import Run
from tests.small import CONFIG, CORPUS, SETTINGS

BELONGS = {"recipe": "fp32", "seed": 0, "training": {"batch": 4, "rates": [1, 0.5]}}


def objects(seed=0):
    """Return a run that has done a step, and all that a checkpoint keeps of it."""
    torch.manual_seed(seed)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0 ** (5 + seed))
    scaler.scale(model(torch.randn(4, 3)).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    run = Run("fp32", 0, [5.0 + seed], [0.1], [(1, 32.0)])
    return run, model, optimizer, scaler, torch.Generator().manual_seed(seed)


def state(run, model, optimizer, scaler, generator):
    moments = [one for row in optimizer.state.values() for one in row.values()]
    tensors = [*model.parameters(), *moments, generator.get_state()]
    return run, scaler.state_dict(), [one.tolist() for one in tensors]


@pytest.fixture
def kept(tmp_path):
    checkpoint = Checkpoint(tmp_path / "c", 1, BELONGS)
    checkpoint.keep(*objects())
    return checkpoint


def refused(checkpoint, *said):
    """Assert that restoring is refused in one sentence and changes nothing at all."""
    mine, content = objects(seed=1), checkpoint.path.read_bytes()
    with pytest.raises(InputError) as caught:
        checkpoint.restore(*mine)
    assert state(*mine) == state(*objects(seed=1))
    assert checkpoint.path.read_bytes() == content
    sentence = str(caught.value)
    assert "\n" not in sentence and "delete it" in sentence
    for words in said:
        assert words in sentence


def signed(content):
    return content + hashlib.sha256(content).digest()


def test_everything_comes_back(kept):
    mine = objects(seed=1)
    assert state(*mine) != state(*objects())
    kept.restore(*mine)
    assert state(*mine) == state(*objects())


def test_without_a_file_nothing_changes(tmp_path):
    for checkpoint in (Checkpoint(), Checkpoint(tmp_path / "none", 1, BELONGS)):
        mine = objects()
        checkpoint.restore(*mine)
        assert state(*mine) == state(*objects())
        checkpoint.remove()


def test_it_is_due_at_multiples_and_only_with_a_file(tmp_path):
    made = [Checkpoint(tmp_path / "c", 3), Checkpoint(tmp_path / "c", 0), Checkpoint()]
    due = [[step for step in range(1, 8) if one.is_due(step)] for one in made]
    assert due == [[3, 6], [], []]


def test_torch_itself_reads_it_safely(kept):
    body = io.BytesIO(kept.path.read_bytes()[:-32])
    saved = torch.load(body, weights_only=True)
    assert saved["run"]["losses"] == [5.0] and set(saved["model"]) == {"weight", "bias"}


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.99, 0.9999])
def test_a_truncated_file(kept, share):
    content = kept.path.read_bytes()
    kept.path.write_bytes(content[: int(len(content) * share)])
    refused(kept, "damaged or cut short")


def test_one_wrong_bit_anywhere(kept):
    content, draw = kept.path.read_bytes(), random.Random(0)
    for _ in range(60):
        place, bit = draw.randrange(len(content)), 1 << draw.randrange(8)
        wrong = bytearray(content)
        wrong[place] ^= bit
        kept.path.write_bytes(wrong)
        refused(kept, "damaged or cut short")


class Bait:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def zipped(bait):
    buffer = io.BytesIO()
    torch.save({"run": bait}, buffer)
    return buffer.getvalue()


def plain(bait):
    return pickle.dumps({"run": bait}, protocol=2)


@pytest.mark.parametrize("pack", [zipped, plain])
def test_a_pickle_that_runs_code_is_refused_and_runs_none(kept, tmp_path, pack):
    content = pack(Bait(tmp_path / "bait"))
    kept.path.write_bytes(signed(content))
    refused(kept, "more than plain data")
    assert not (tmp_path / "bait").exists()
    # The bait is live: what is not safe loading takes it.
    if pack is zipped:
        torch.load(io.BytesIO(content), weights_only=False)
    else:
        pickle.loads(content)
    assert (tmp_path / "bait").is_dir()


@pytest.mark.parametrize("content", [{"weights": 1}, [1, 2], 3])
def test_another_programs_file(kept, content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    kept.path.write_bytes(signed(buffer.getvalue()))
    refused(kept, "no checkpoint of this course")


def forged(checkpoint, change):
    """Put a file with `change` in what it holds, and the right sum, in its place."""
    body = checkpoint.path.read_bytes()[: -hashlib.sha256().digest_size]
    saved = torch.load(io.BytesIO(body), weights_only=True)
    buffer = io.BytesIO()
    torch.save(saved | change, buffer)
    checkpoint.path.write_bytes(signed(buffer.getvalue()))


@pytest.mark.parametrize(
    "change",
    [
        {"belongs": 3},
        {"belongs": "no JSON"},
        {"belongs": "[1]"},
        {"run": {}},
        {"run": [1, 2]},
        {"model": None},
        {"generator": "none"},
        {"more": 1},
    ],
)
def test_a_made_up_file_changes_nothing(kept, change):
    forged(kept, change)
    refused(kept, "no checkpoint of this course")
    with pytest.raises(InputError, match="no checkpoint of this course"):
        tidy(kept.path, {("fp32", 0)})
    assert kept.path.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"weight": torch.zeros(9)}},
        {"optimizer": {"state": {}}},
        {"scaler": {"scale": 1.0}},
        {"generator": torch.zeros(3)},
    ],
)
def test_a_made_up_state_is_one_sentence(kept, change):
    forged(kept, change)
    with pytest.raises(InputError, match="states that this run cannot have: delete it"):
        kept.restore(*objects(seed=1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"recipe": "bf16"}, "with recipe 'fp32', this run has 'bf16'"),
        ({"seed": 3}, "with seed 0, this run has 3"),
        ({"training": {"batch": 8, "rates": [1, 0.5]}}, "with training batch 4"),
        ({"training": {"batch": 4, "rates": [1]}}, "with training rates [1, 0.5]"),
        ({"more": 1}, "with more None, this run has 1"),
    ],
)
def test_a_checkpoint_of_another_run(kept, change, said):
    refused(replace(kept, belongs={**BELONGS, **change}), said)


def test_tuples_and_torchs_version_are_the_same_after_a_save(tmp_path):
    belongs = {"shape": (1, 2), "torch": torch.__version__}
    checkpoint = Checkpoint(tmp_path / "c", 1, belongs)
    checkpoint.keep(*objects())
    mine = objects(seed=1)
    checkpoint.restore(*mine)
    assert state(*mine) == state(*objects())


def full_at_the_end(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    return "No space left on device"


def full_in_the_middle(monkeypatch):
    """Let the system itself refuse, once some of the file is written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    write = files.write_atomically

    def limited(*given):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            write(*given)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    monkeypatch.setattr(files, "write_atomically", limited)
    return "File too large"


@pytest.mark.parametrize("fill", [full_at_the_end, full_in_the_middle])
def test_a_full_disk_keeps_the_old_checkpoint(kept, tmp_path, monkeypatch, fill):
    before = kept.path.read_bytes()
    reason = fill(monkeypatch)
    with pytest.raises(InputError, match=f"could not be written .{reason}.*make room"):
        kept.keep(*objects(seed=1))
    assert kept.path.read_bytes() == before and list(tmp_path.iterdir()) == [kept.path]


def test_a_folder_in_its_place(tmp_path):
    (tmp_path / "c").mkdir()
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\)"):
        Checkpoint(tmp_path / "c", 1, BELONGS).restore(*objects())


def test_halves_of_files_are_deleted_and_nothing_else(kept, tmp_path):
    ours = tmp_path / ".c.123.part"
    others = [".c.d.123.part", ".cc.123.part", ".c.123.parts", ".c.part", "c.123.part"]
    for name in (ours.name, *others):
        (tmp_path / name).write_bytes(b"half")
    tidy(kept.path, set())
    assert {file.name for file in tmp_path.iterdir()} == {*others, "c"}


def test_only_a_finished_runs_checkpoint_is_deleted(kept):
    tidy(kept.path, {("fp32", 1), ("bf16", 0)})
    assert kept.path.exists()
    tidy(kept.path, {("fp32", 0)})
    assert not kept.path.exists()
    tidy(kept.path, {("fp32", 0)})


def stop(name, seed, step, loss):
    if step == 5:
        raise KeyboardInterrupt


@pytest.fixture
def out(tmp_path, monkeypatch):
    """A comparison without a finished run, stopped after a checkpoint."""
    monkeypatch.setattr(hardware, "native", lambda *_: True)
    monkeypatch.setitem(gpt.SIZES, "dot", CONFIG)
    monkeypatch.setitem(gpt.SIZES, "dash", replace(CONFIG, layers=2))
    path = tmp_path / "out.json"
    with pytest.raises(KeyboardInterrupt):
        comparison.run(begin(), ["fp32"], [0], CORPUS, path, stop, 2)
    assert not path.exists()
    return path


def begin(size="dot", settings=SETTINGS, corpus=CORPUS):
    return comparison.begin(size, settings, corpus, "cpu", "mpteach compare")


@pytest.mark.parametrize(
    ("given", "names", "seed", "said"),
    [
        ({}, ["bf16"], 0, "recipe 'fp32', this run has 'bf16'"),
        ({}, ["fp32"], 1, "seed 0, this run has 1"),
        ({"size": "dash"}, ["fp32"], 0, "size 'dot', this run has 'dash'"),
        (
            {"settings": replace(SETTINGS, learning_rate=1e-3)},
            ["fp32"],
            0,
            "training learning_rate 0.0006, this run has 0.001",
        ),
        (
            {"corpus": Corpus("verse", CORPUS.text.swapcase())},
            ["fp32"],
            0,
            "corpus sha256",
        ),
    ],
)
def test_a_comparison_refuses_the_checkpoint_of_another(out, given, names, seed, said):
    file = comparison.checkpoint_path(out)
    before = file.read_bytes()
    with pytest.raises(InputError, match=f"was begun with {said}"):
        comparison.run(begin(**given), names, [seed], CORPUS, out, stop, 2)
    assert file.read_bytes() == before and not out.exists()


def test_other_sources_of_the_package_are_another_run(out):
    other = replace(begin(), sources="0" * 64)
    with pytest.raises(InputError, match="was begun with package sources"):
        comparison.run(other, ["fp32"], [0], CORPUS, out)

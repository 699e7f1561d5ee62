"""`mpteach compare` as a person meets it: the good run, Ctrl-C, kill, and every bad input."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from filelock import FileLock

from mpteach import cli, comparison, files, gpt, hardware, recipes, records
from tests.commands import refused
from tests.small import CONFIG, CORPUS

# What a device with float32 and bfloat16 products runs.
ABLE = ["fp32", "bf16", "bf16-pure", "bf16-master"]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "verse.txt"
    path.write_bytes(CORPUS.text)
    return path


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(
        hardware, "native", lambda dtype, _: dtype in ("float32", "bfloat16")
    )
    monkeypatch.setitem(gpt.SIZES, "dot", CONFIG)


@pytest.fixture
def compare(tmp_path, text, capsys):
    def call(*words, out="out.json"):
        common = ["compare", "--size", "dot", "--text", str(text), "--device", "cpu"]
        common += ["--steps", "12", "--batch", "4", "--seeds", "1"]
        status = cli.main([*common, "--out", str(tmp_path / out), *words])
        return status, capsys.readouterr()

    return call


def test_it_prints_a_table_and_names_what_this_machine_lacks(compare, tmp_path):
    status, said = compare()
    assert status == 0
    rows = [line.split()[0] for line in said.out.splitlines()]
    assert rows == ["recipe", *ABLE, *ABLE[1:], "The"]
    assert "\nbf16 against fp32, 1 seeds: nothing resolved" in said.out
    for name in set(recipes.RECIPES) - set(ABLE):
        assert f"\n{name}: this cpu has no" in f"\n{said.err}"
    record = records.load(tmp_path / "out.json")
    assert record.command.startswith("mpteach compare --size dot")
    # Nobody's folders are told.
    assert record.command.endswith("--out out.json") and "/" not in record.command


def test_json_is_the_record(compare, tmp_path):
    status, said = compare("--json", "--recipes", "fp32")
    assert status == 0 and json.loads(said.out)["experiment"] == "comparison"


def test_the_learning_rate_is_as_asked(compare, tmp_path):
    words = {"learning_rate": "0.01", "warmup_steps": "3", "final_rate": "0.5"}
    flags = [w for key, x in words.items() for w in (f"--{key.replace('_', '-')}", x)]
    assert compare("--recipes", "fp32", *flags)[0] == 0
    trained = records.load(tmp_path / "out.json").settings["training"]
    assert {key: trained[key] for key in words} == {k: float(x) for k, x in words.items()}
    other = compare("--learning-rate", "-1", out="other.json")
    refused(other, "learning_rate was -1.0")


def test_a_second_call_adds_nothing(compare, tmp_path):
    compare()
    before = (tmp_path / "out.json").read_bytes()
    status, _ = compare()
    assert status == 0 and (tmp_path / "out.json").read_bytes() == before


def test_ctrl_c_keeps_the_finished_runs(compare, tmp_path, monkeypatch):
    once = comparison.training.train

    def second_is_interrupted(model, corpus, recipe, *rest):
        if recipe.name == "bf16":
            raise KeyboardInterrupt
        return once(model, corpus, recipe, *rest)

    monkeypatch.setattr(comparison.training, "train", second_is_interrupted)
    status, said = compare()
    assert status == 130 and "the same command goes on" in said.err
    assert [r["recipe"] for r in records.load(tmp_path / "out.json").data["runs"]] == [
        "fp32"
    ]
    monkeypatch.setattr(comparison.training, "train", once)
    assert compare()[0] == 0
    assert len(records.load(tmp_path / "out.json").data["runs"]) == len(ABLE)


def test_a_killed_comparison_goes_on_from_its_file(tmp_path, text):
    out = tmp_path / "out.json"
    words = [
        "compare",
        "--size",
        "tiny",
        "--text",
        str(text),
        "--device",
        "cpu",
        "--batch",
        "1",
    ]
    words += ["--steps", "30", "--recipes", "fp32", "--seeds", "40", "--out", str(out)]
    command = [
        sys.executable,
        "-c",
        "import sys; from mpteach.cli import main; sys.exit(main())",
    ]
    with open(tmp_path / "log", "w") as log:
        victim = subprocess.Popen([*command, *words], stderr=log, stdout=log)
    deadline = time.monotonic() + 60
    while not out.exists() and victim.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(victim.pid, signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL, (tmp_path / "log").read_text()
    kept = len(records.load(out).data["runs"])
    assert 1 <= kept < 40
    words[words.index("40")] = str(kept + 1)
    # The text is one of the settings, the number of seeds is not.
    subprocess.run([*command, *words], check=True, capture_output=True)
    assert len(records.load(out).data["runs"]) == kept + 1


def test_unknown_words(compare):
    refused(compare("--recipes", "fp64"), "'fp64'", "choose from fp32, tf32")
    refused(compare("--size", "7B"), "'7B'", "choose from tiny, 25M")
    refused(compare("--device", "tpu"), "'tpu'", "choose cpu or cuda")
    refused(compare("--device", ""), "''", "choose cpu or cuda")
    refused(compare("--colour"), "--colour", "mpteach --help")


@pytest.mark.parametrize("words", [["study", "gradients"], ["parity"]])
def test_an_empty_device_is_not_the_default(words, tmp_path, capsys):
    out = tmp_path / "out.json"
    status = cli.main([*words, "--device", "", "--out", str(out)])
    refused((status, capsys.readouterr()), "''", "cpu")
    assert not out.exists()


def test_a_gpu_that_is_not_there(compare, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused(compare("--device", "cuda"), "no GPU", "--device cpu")


@pytest.mark.parametrize("flag", ["--steps", "--seeds", "--batch"])
@pytest.mark.parametrize("value", ["0", "-2"])
def test_counts_below_one(compare, flag, value):
    refused(compare(flag, value), f"{flag[2:]} was {value}", "at least 1")


def test_a_count_that_is_no_number(compare):
    refused(compare("--steps", "many"), "--steps", "'many'")


def test_texts_that_cannot_serve(compare, tmp_path, text):
    refused(compare("--text", str(tmp_path / "none")), "none", "does not exist")
    (tmp_path / "empty").touch()
    refused(compare("--text", str(tmp_path / "empty")), "is empty")
    (tmp_path / "short").write_text("short")
    refused(compare("--text", str(tmp_path / "short")), "has 5 bytes", "at least")
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize("content", [b"", b"my thesis", b"[1, 2]}", b'{"a": 1}'])
def test_a_file_that_is_no_record_is_left_alone(compare, tmp_path, content):
    (tmp_path / "out.json").write_bytes(content)
    refused(compare(), "out.json")
    assert (tmp_path / "out.json").read_bytes() == content


def test_a_folder_and_a_missing_folder(compare, tmp_path):
    (tmp_path / "folder").mkdir()
    refused(compare(out="folder"), "is a folder", "name of a file")
    refused(compare(out="none/out.json"), "no folder", "make it first")


def test_a_place_without_permission(compare, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    # Root may write anywhere, so the refusal is staged rather than set by chmod.
    monkeypatch.setattr(files, "_part_of", refuse)
    refused(compare(), "cannot be written (Permission denied)", "another name")


def test_a_record_of_other_settings(compare, tmp_path):
    compare("--recipes", "fp32")
    before = (tmp_path / "out.json").read_bytes()
    refused(compare("--recipes", "fp32", "--steps", "13"), "was begun with training")
    assert (tmp_path / "out.json").read_bytes() == before


def test_a_gpu_out_of_memory(compare, monkeypatch):
    def exhaust(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(comparison.training, "train", exhaust)
    status, said = compare("--recipes", "fp32")
    assert status == 2 and "ran out of memory in fp32" in said.err.splitlines()[-1]
    assert "--batch" in said.err and "Traceback" not in said.err


def test_a_recipe_named_twice_runs_once(compare, tmp_path):
    assert compare("--recipes", "fp32", "fp32")[0] == 0
    assert len(records.load(tmp_path / "out.json").data["runs"]) == 1


def test_a_second_process_on_the_same_record_is_refused(compare, tmp_path):
    with FileLock(tmp_path / ".out.json.lock"):
        refused(compare(), "being written by another process")


def test_a_record_inside_its_own_text_is_refused(compare, tmp_path):
    refused(compare("--text", str(tmp_path)), "lies in the text", "keep it elsewhere")


def test_an_empty_text_path_is_not_the_standard_library(compare):
    refused(compare("--text", ""), "path was empty")


@pytest.mark.parametrize("flag", ["--seeds", "--steps", "--batch"])
def test_a_slip_of_the_keyboard(compare, flag):
    refused(compare(flag, "1" + "0" * 20), "at most 1,000,000")


def test_pipes_are_refused_and_do_not_hang(compare, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    refused(compare(out="pipe"), "no ordinary file")
    refused(compare("--text", str(tmp_path / "pipe")), "no ordinary file")


def test_a_full_disk_is_said_and_the_record_kept(compare, tmp_path, monkeypatch):
    compare("--recipes", "fp32")
    before = (tmp_path / "out.json").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    status, said = compare("--recipes", "bf16")
    assert status == 2 and "No space left on device" in said.err.splitlines()[-1]
    assert (tmp_path / "out.json").read_bytes() == before


def test_ctrl_c_before_the_first_step(compare, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(comparison, "begin", interrupt)
    status, said = compare()
    assert status == 130 and said.err == "Stopped.\n"


def test_a_package_that_is_missing_is_named(compare, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    status, said = compare()
    assert status == 2 and "tqdm cannot be loaded: run 'mpteach doctor'" in said.err


def test_a_reader_that_stops_reading_is_no_error():
    code = (
        "import sys; from mpteach.cli import main; sys.exit(main(['doctor', '--json']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE
    ) as child:
        child.stdout.close()
    assert child.returncode == 0


def test_nothing_to_run_at_all(compare, tmp_path):
    refused(compare("--recipes", "tf32", "fp16"), "tfloat32", "float16", "--recipes")
    assert not (tmp_path / "out.json").exists()


@pytest.fixture
def ids(tmp_path):
    path = tmp_path / "ids.npy"
    np.save(path, np.tile(np.arange(200, dtype=np.uint16), 10))
    return path


def test_a_tokenizers_ids_are_trained_on(ids, tmp_path, capsys):
    out = tmp_path / "ids.json"
    words = ["compare", "--size", "dot", "--tokens", str(ids), "--device", "cpu"]
    words += ["--steps", "3", "--batch", "2", "--seeds", "1", "--recipes", "fp32"]
    assert cli.main([*words, "--out", str(out)]) == 0
    kept = records.load(out).settings["corpus"]
    assert (kept["name"], kept["size_bytes"]) == ("ids.npy", 4000)
    capsys.readouterr()
    status = cli.main([*words, "--out", str(ids)])
    refused((status, capsys.readouterr()), "lies in the text")


def test_tokens_and_text_exclude_each_other(compare, ids):
    refused(compare("--tokens", str(ids)), "--tokens", "not allowed with", "--text")


def test_compiling_on_a_cpu_or_by_another_word(compare):
    refused(compare("--compile", "blocks"), "'blocks'", "needs a GPU")
    refused(compare("--compile", "all"), "compiled was 'all'", "'whole'")


def test_the_help_names_every_size(capsys):
    with pytest.raises(SystemExit):
        cli.main(["compare", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert all(f"{size}" in said for size in set(gpt.SIZES) - {"dot"})


def test_parts_made_side_by_side_are_joined(compare, tmp_path):
    compare("--recipes", "fp32", "bf16", "--seeds", "3", out="whole.json")
    compare("--recipes", "fp32", "bf16", "--seeds", "2", out="a.json")
    compare("--recipes", "fp32", "bf16", "--first-seed", "2", out="b.json")
    join = ["--join", str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    status, said = compare("--recipes", "fp32", "bf16", "--seeds", "3", *join)
    assert status == 0 and "bf16 against fp32, 3 seeds" in said.out
    whole, joined = (records.load(tmp_path / f"{name}.json") for name in ("whole", "out"))
    losses = [
        {(run["recipe"], run["seed"]): run["losses"] for run in record.data["runs"]}
        for record in (whole, joined)
    ]
    assert losses[0] == losses[1] and len(losses[1]) == 6
    assert joined.seeds == [0, 1, 2] and joined.command.count("mpteach compare") == 3
    assert records.load(tmp_path / "a.json").seeds == [0, 1]


def test_a_run_that_both_parts_hold_is_refused_and_both_are_kept(compare, tmp_path):
    compare("--recipes", "fp32", out="a.json")
    compare("--recipes", "fp32")
    before = (tmp_path / "out.json").read_bytes()
    refused(
        compare("--join", str(tmp_path / "a.json")),
        "both records hold fp32 with seed 0: join records of different seeds or recipes",
    )
    assert (tmp_path / "out.json").read_bytes() == before


def test_what_is_no_part_of_this_comparison_is_not_joined(compare, tmp_path):
    compare("--recipes", "fp32", "--steps", "3", out="a.json")
    refused(
        compare("--join", str(tmp_path / "a.json")),
        "a.json was begun with training",
    )
    refused(compare("--join", str(tmp_path / "none.json")), "there is no record")
    assert not (tmp_path / "out.json").exists()


def test_a_command_that_joined_goes_on_when_given_again(compare, tmp_path):
    compare("--recipes", "fp32", out="a.json")
    words = ["--recipes", "fp32", "--seeds", "2", "--join", str(tmp_path / "a.json")]
    assert compare(*words)[0] == 0
    before = (tmp_path / "out.json").read_bytes()
    assert compare(*words)[0] == 0
    assert (tmp_path / "out.json").read_bytes() == before


def test_of_several_parts_all_are_joined_or_none(compare, tmp_path):
    compare("--recipes", "fp32", out="a.json")
    (tmp_path / "b.json").write_text("{}")
    join = ["--join", str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    refused(compare("--recipes", "fp32", *join), "b.json")
    assert not (tmp_path / "out.json").exists()


def test_a_name_with_an_ampersand_is_no_second_command(compare, tmp_path):
    words = ["--recipes", "fp32", "--seeds", "2"]
    compare(*words, out="a && b.json")
    before = records.load(tmp_path / "a && b.json")
    compare(*words, "--first-seed", "1", out="a && b.json")
    after = records.load(tmp_path / "a && b.json")
    again = records.resume(before, tmp_path / "a && b.json")
    assert again.command == after.command
    assert records.commands(after)[0] == before.command
    assert len(records.commands(after)) == 2


def test_a_checkpoint_that_cannot_be_kept_is_told_before_the_first_step(
    compare, tmp_path
):
    os.mkfifo(tmp_path / "out.json.checkpoint")
    for every in ("0", "5"):
        status, said = compare("--recipes", "fp32", "--checkpoint-every", every)
        assert status == 2 and "out.json.checkpoint' is no ordinary file" in said.err
    long = "n" * 240  # the record has room, a checkpoint beside it has not
    status, said = compare("--recipes", "fp32", out=long)
    assert status == 2 and "File name too long): give another name" in said.err
    assert not (tmp_path / long).exists()


def test_a_link_to_itself_is_told(compare, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    refused(compare(out="loop"), "loop", "delete the link or name another")
    refused(compare("--text", str(tmp_path / "loop")), "loop")
    assert (tmp_path / "loop").is_symlink()


def test_a_batch_beyond_the_memory_is_refused_not_killed(compare, monkeypatch):
    # 8 tokens a window, 256 logits each: value and gradient, float32.
    needed = 1000 * 8 * 256 * 2 * 4
    monkeypatch.setattr(hardware, "free_memory_bytes", lambda: needed)
    refused(compare("--batch", "1000"), "size dot with batch 1000", "lower --batch")
    monkeypatch.setattr(hardware, "free_memory_bytes", lambda: None)
    assert compare("--recipes", "fp32", "--steps", "1")[0] == 0


def test_with_no_room_for_the_sentence_the_status_still_tells(compare, monkeypatch):
    full = open("/dev/full", "w", buffering=1)
    monkeypatch.setattr(sys, "stderr", full)
    assert compare("--steps", "0")[0] == 2
    monkeypatch.undo()
    with pytest.raises(OSError):
        full.close()

"""Records: what is kept, and the error each kind of damage gets."""

import json
import subprocess

import pytest

from mpteach import files, records
from mpteach.errors import InputError


@pytest.fixture
def path(tmp_path):
    record = records.begin("test", {"steps": 2}, "mpteach test", "cpu")
    path = tmp_path / "run.json"
    record.with_data([0, 1], {"losses": [1.5, None]}).save(path)
    return path


def rewrite(path, change, sign=False):
    content = json.loads(path.read_text())
    change(content)
    if sign:
        del content["checksum"]
        content["checksum"] = records._checksum(content)
    path.write_text(json.dumps(content))


def test_a_record_comes_back_as_it_was_saved(path):
    record = records.load(path)
    assert record.data == {"losses": [1.5, None]} and record.seeds == [0, 1]
    assert record.machine["torch"] and record.machine["python"]
    assert record.sources == records.source_digest()
    before = path.read_text()
    record.save(path)
    assert path.read_text() == before


def test_provenance_names_the_commit_of_the_sources():
    head = subprocess.run(
        ["git", "-C", str(records.ROOT), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
    )
    record = records.begin("test", {}, "", "cpu")
    assert record.commit == (head.stdout.strip() if head.returncode == 0 else None)
    assert (record.clean is None) == (record.commit is None)


def test_outside_a_repository_there_is_a_digest_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "ROOT", tmp_path)
    (tmp_path / "mpteach").mkdir()
    (tmp_path / "mpteach" / "one.py").write_text("1")
    record = records.begin("test", {}, "", "cpu")
    assert record.commit is None and record.clean is None
    first = record.sources
    (tmp_path / "mpteach" / "one.py").write_text("2")
    assert records.source_digest() != first


def test_not_finite_data_are_refused(path):
    with pytest.raises(ValueError):
        records.load(path).with_data([0], {"loss": float("nan")}).save(path)
    assert records.load(path).data["losses"] == [1.5, None]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_record(path, share):
    text = path.read_text().strip()
    path.write_text(text[: int(len(text) * share)])
    with pytest.raises(records.TruncatedRecord, match="ends before its closing brace"):
        records.load(path)


def test_a_damaged_record(path):
    path.write_text(path.read_text().replace(":", ";", 1))
    with pytest.raises(records.DamagedRecord, match="not JSON .*line 1 column"):
        records.load(path)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00}", b"{}{}"])
def test_a_file_that_is_no_record(path, content):
    path.write_bytes(content)
    with pytest.raises(records.DamagedRecord):
        records.load(path)


def test_a_hand_edited_record(path):
    rewrite(path, lambda content: content["data"]["losses"].append(1.4))
    with pytest.raises(records.EditedRecord, match="changed after it was written"):
        records.load(path)


@pytest.mark.parametrize("schema", [0, 2, None])
def test_a_record_of_another_schema(path, schema):
    rewrite(path, lambda content: content.update(schema=schema), sign=True)
    with pytest.raises(
        records.SchemaMismatch, match=f"schema {schema}, this version reads 1"
    ):
        records.load(path)


@pytest.mark.parametrize("name", ["machine", "command", "sources", "date", "settings"])
def test_missing_provenance(path, name):
    rewrite(path, lambda content: content.pop(name), sign=True)
    with pytest.raises(records.MissingProvenance, match=f"does not say its {name}"):
        records.load(path)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "1e999", "1" * 5000, "[" * 99999])
def test_numbers_that_json_has_not(path, word):
    path.write_text(path.read_text().replace('"seeds": [', f'"seeds": [{word}, ', 1))
    with pytest.raises(records.DamagedRecord, match="run.json is not JSON"):
        records.load(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("machine", [1]), ("data", []), ("seeds", "0"), ("clean", "yes")],
)
def test_a_field_of_another_type(path, name, value):
    rewrite(path, lambda content: content.update({name: value}), sign=True)
    with pytest.raises(records.DamagedRecord, match=f"as its {name}: make it again"):
        records.load(path)


def test_a_field_too_many(path):
    rewrite(path, lambda content: content.update(extra=1), sign=True)
    with pytest.raises(records.DamagedRecord, match="extra"):
        records.load(path)


def test_an_absent_record_and_a_folder(tmp_path):
    with pytest.raises(InputError, match="no record at"):
        records.load(tmp_path / "none.json")
    with pytest.raises(InputError, match="no ordinary file"):
        records.load(tmp_path)


def test_a_crash_while_writing_leaves_the_old_file(path, monkeypatch):
    before = path.read_text()
    monkeypatch.setattr(
        files.os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full"))
    )
    with pytest.raises(InputError, match="could not be written .full. and holds what"):
        records.load(path).save(path)
    assert path.read_text() == before and list(path.parent.iterdir()) == [path]


def test_every_record_of_the_course_is_valid():
    for path in records.RECORDS.glob("*.json"):
        record = records.load(path)
        # The name says where it ran; no record names a folder of somebody's machine.
        where = path.stem.rsplit("_")[-1]
        assert where in (record.machine["gpu"] or "cpu").lower() and record.seeds
        assert not any(word.startswith("/") for word in record.command.split())

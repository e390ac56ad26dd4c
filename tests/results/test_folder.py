"""Result files: mteb reads them, they are written whole or not at all, none is silently lost."""

import errno
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import mteb
import pyarrow as pa
import pytest
from result_cells import PROTOCOL, cell, outcome

from lcbench.errors import RequestError, StorageError
from lcbench.reporting.table1 import build_tables
from lcbench.results.cell import Cell
from lcbench.results.content import DIGEST, digest_of
from lcbench.results.failure import Failure
from lcbench.results.folder import Results, _set_aside
from lcbench.results.items import (
    ITEMS,
    ITEMS_DIGEST,
    ITEMS_SCHEMA,
    ItemsError,
    digest_of_items,
    whole_items,
)
from lcbench.results.rows import separate_texts
from lcbench.run import claims
from lcbench.system import files
from lcbench.system import process as machine
from lcbench.system.files import remove_leftovers, write_atomically
from lcbench.tempscale.policy import BASELINE, ByLayer, Constant


def read(results: Results, **options: Any) -> Any:
    warnings: list[str] = []
    frame = results.read(lambda task, kind: kind or "?", warnings.append, **options)
    return frame, warnings


@pytest.fixture
def results(tmp_path: Path) -> Results:
    found = Results(tmp_path / "runs")
    for policy, score in ((BASELINE, 0.5), (Constant(0.8), 0.625)):
        found.write(cell(policy), outcome(cell(policy), score))
    return found


def test_mteb_reads_every_cell_and_its_numbers_are_ours(results: Results) -> None:
    cache = mteb.ResultCache(cache_path=results.folder / PROTOCOL.key)
    loaded = cache.load_results(include_remote=False, load_experiments="match_name")
    found = {one.experiment_name: one.task_results[0].get_score() for one in loaded.model_results}
    assert found == {None: 0.5, "tau_0.8": 0.625}
    frame, _ = read(results)
    assert dict(zip(frame["policy"], frame["score"], strict=True)) == {"1": 0.5, "0.8": 0.625}


def test_the_documented_lines_for_mteb_take_one_temperature(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without naming one, mteb averages them: 0.5 and 0.625 are 0.5625."""
    page = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(import mteb\n.*?)^```", page, flags=re.M | re.S)
    block, count = re.subn(r"results/runs/paper-[0-9a-f]{8}", f"runs/{PROTOCOL.key}", block)
    assert count == 1
    monkeypatch.chdir(results.folder.parent)
    made: dict[str, Any] = {}
    exec(block, made)
    shown = {name: made[name].set_index("task_name").iloc[0, -1] for name in ("baseline", "scores")}
    assert shown == {"baseline": 0.5, "scores": 0.625}
    cache = mteb.ResultCache(cache_path=results.folder / PROTOCOL.key)
    mixed = cache.load_results(include_remote=False, load_experiments="match_name").to_dataframe()
    assert mixed.iloc[0, -1] == 0.5625


def test_the_layout(results: Results) -> None:
    folder = results.folder / PROTOCOL.key / "results" / "some__model" / ("f" * 40)
    names = {
        "STSBenchmark.json",
        "STSBenchmark.provenance.jsonl",
        "STSBenchmark.items.parquet",
        "model_meta.json",
    }
    assert {path.name for path in folder.iterdir() if path.is_file()} == names
    experiment = folder / "experiments" / "tau_0.8"
    assert {path.name for path in experiment.iterdir()} == names
    assert json.loads((experiment / "model_meta.json").read_text())["experiment_kwargs"] == {
        "tau": "0.8"
    }
    # For others to read, as any file of theirs would be.
    assert (folder / "STSBenchmark.json").stat().st_mode & 0o444 == 0o444


def test_the_frame(results: Results) -> None:
    frame, warnings = read(results)
    assert warnings == []
    row = frame[frame["policy"] == "0.8"].iloc[0].to_dict()
    conditions = row.pop("conditions")
    assert row.pop("protocol") == PROTOCOL.record
    assert row.pop("files") == results.files(cell(Constant(0.8)))
    assert row == {
        "group": "paper",
        "window": 512,
        "model": "some/model",
        "revision": "f" * 40,
        "path": None,
        "label": None,
        "policy": "0.8",
        "task": "STSBenchmark",
        "column": "STS",
        "split": "test",
        "subset": "default",
        "score": 0.625,
        "imported": None,
        "left_out": {},
    }
    assert conditions["mteb"] == "2.26.24"
    assert json.loads(conditions["data"])["origin"] == "hub"
    assert conditions["dataset_revision"] == mteb.get_task("STSBenchmark").metadata.revision


def test_only_the_cells_that_are_asked_for_are_read(results: Results) -> None:
    frame, _ = read(results, paths=[results.files(cell()).result])
    assert list(frame["policy"]) == ["1"]


def test_two_draws_of_the_docs_suite_are_never_in_one_table(results: Results) -> None:
    for digest in ("a" * 40, "b" * 40):
        other = replace(cell(), protocol=replace(PROTOCOL, texts=digest))
        finished = outcome(other, 0.5)
        data = {"dataset": "docstrings", "revision": digest, "origin": "installed libraries"}
        results.write(other, replace(finished, provenance={**finished.provenance, "data": data}))
    frame, _ = read(results)
    assert set(frame["group"]) == {
        "paper",
        "paper, docs aaaaaaaa",
        "paper, docs bbbbbbbb",
    }


def test_synthetic_tasks_differ_by_window_and_not_by_group(results: Results) -> None:
    """Their lengths go by the window: at another one, other texts are no other draw."""
    docs = [
        ("DocstringRetrieval", 256, "a"),
        ("DocstringRetrieval", 512, "a"),
        ("DocstringNeedleRetrieval", 256, "b"),
        ("DocstringNeedleRetrieval", 512, "c"),
    ]
    rows = [
        {
            "group": "paper",
            "window": window,
            "by_window": task == "DocstringNeedleRetrieval",
            "task": task,
            "texts": digest * 40,
            "dataset": "docstrings",
        }
        for task, window, digest in docs
    ]
    separate_texts(rows)
    assert {row["group"] for row in rows} == {"paper"}
    # Of the same window it is one, and nothing else is told apart for it.
    rows.append({**rows[-1], "texts": "d", "dataset": None})
    separate_texts(rows)
    assert [row["group"] for row in rows] == [
        *("paper", "paper", "paper", "paper, docs cccccccc", "paper, docs d")
    ]


def test_texts_of_two_names_are_no_two_draws_of_one() -> None:
    texts = [("DocstringRetrieval", None, "a"), ("Own", "letters", "b"), ("Own", "letters", "c")]
    rows = [
        {
            "group": "paper",
            "window": 512,
            "by_window": False,
            "task": task,
            "texts": digest * 40,
            "dataset": dataset,
        }
        for task, dataset, digest in texts
    ]
    separate_texts(rows[:2])
    assert [row["group"] for row in rows[:2]] == ["paper", "paper"]
    separate_texts(rows)
    assert [row["group"] for row in rows] == [
        *("paper", "paper, letters bbbbbbbb", "paper, letters cccccccc")
    ]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"task_name": "STSBenchmark"}',
        '{"task_name": "STSBenchmark", "scores": {}}',
        '{"task_name": "STSBenchmark", "scores": {"test": []}}',
        '{"task_name": "STSBenchmark", "scores": {"test": [{"hf_subset": "default"}]}}',
    ],
)
def test_a_file_that_cannot_be_read_is_set_aside_and_reported(
    results: Results, content: str
) -> None:
    path = results.files(cell()).result
    path.write_text(content)
    warnings: list[str] = []
    assert not results.is_done(cell(), warnings.append)
    (warning,) = warnings
    (aside,) = path.parent.glob("STSBenchmark.json.broken-*")
    assert aside.name in warning
    assert aside.read_text() == content
    assert not path.exists()
    assert results.is_done(cell(Constant(0.8)), warnings.append)


def test_a_broken_file_is_not_averaged_by_a_report(results: Results) -> None:
    results.files(cell()).result.write_text("{")
    frame, warnings = read(results)
    assert list(frame["policy"]) == ["0.8"]
    assert len(warnings) == 1


def test_a_result_without_provenance_is_left_out_with_a_warning(results: Results) -> None:
    results.files(cell()).provenance.unlink()
    frame, warnings = read(results)
    assert list(frame["policy"]) == ["0.8"]
    assert "STSBenchmark.provenance.jsonl" in warnings[0]


def test_a_cell_is_known_by_its_folder(results: Results) -> None:
    for path in results.folder.rglob("model_meta.json"):
        path.unlink()
    frame, _ = read(results)
    assert set(zip(frame["model"], frame["policy"], strict=True)) == {
        ("some/model", "1"),
        ("some/model", "0.8"),
    }


def test_a_failure_is_kept_until_the_cell_succeeds(results: Results) -> None:
    of = cell(task="STS13")
    failure = Failure(
        attempts=2,
        transient=True,
        reason="MemoryError: no\nmore",
        where="node7, process 5",
        at="2026-01-31T12:00:00+00:00",
        traceback="Traceback …\n\n  File\nMemoryError",
    )
    path = results.write_failure(of, failure)
    assert path.read_text().startswith(
        "attempts: 2\nkind: transient\nreason: MemoryError: no more\n"
    )
    assert results.failure(of) == replace(failure, reason="MemoryError: no more")
    assert not results.is_done(of, pytest.fail)
    results.write(of, outcome(of, 0.5))
    assert not path.exists()
    assert results.is_done(of, pytest.fail)


def test_a_result_that_was_changed_by_hand_is_set_aside(results: Results) -> None:
    of = cell(task="STS13")
    finished = outcome(of, 0.5)
    path = results.files(of).result
    results.write(of, finished)
    written = path.read_bytes()
    finished.provenance[DIGEST] = digest_of(written)
    results.write(of, replace(finished, result=lambda file: file.write_bytes(written)))
    assert results.is_done(of, pytest.fail)
    path.write_bytes(written.replace(b"0.5", b"0.9"))
    frame, warnings = read(results)
    assert "STS13" not in set(frame["task"])
    assert "STS13.json was changed after it was written; it is left out" in warnings[0]
    assert path.is_file()
    assert not results.is_done(of, warnings.append)
    assert warnings[1].endswith("and computed again.")
    assert len(list(path.parent.glob("STS13.json.broken-*"))) >= 1


def test_several_processes_meet_the_same_broken_results(results: Results) -> None:
    """One sets each aside; nobody crashes, and what is made again meanwhile stays."""
    cells = [cell(task=f"T{number}") for number in range(60)]

    def good(of: Cell) -> str:
        scores = {"test": [{"main_score": 0.5, "hf_subset": "default"}]}
        return json.dumps({"task_name": of.task, "scores": scores})

    for of in cells:
        path = results.files(of).result
        path.parent.mkdir(parents=True, exist_ok=True)
        results.files(of).provenance.write_text("{}")
        path.write_text('{"task_name": ')

    def meet(out: Any) -> None:
        warnings: list[str] = []
        for of in cells:
            path = results.files(of).result
            if not results.is_done(of, warnings.append):
                write_atomically(path, partial(_write, good(of)))
        out.put(len(warnings))

    context = multiprocessing.get_context("fork")
    out = context.Queue()
    processes = [context.Process(target=meet, args=(out,)) for _ in range(4)]
    for process in processes:
        process.start()
    told = sum(out.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(20)
    assert told == len(cells)
    for of in cells:
        assert results.files(of).result.read_text() == good(of)
        assert len(list(results.files(of).folder.glob(f"{of.task}.json.broken-*"))) == 1


def test_what_is_no_longer_this_processs_to_write_is_not_written(results: Results) -> None:
    of = cell(task="STS13")
    asked = []

    def is_mine() -> bool:
        asked.append(results.files(of).provenance.exists())
        return not asked[-1]

    assert not results.write(of, outcome(of, 0.5), is_mine)
    assert asked[-1]
    assert not results.files(of).result.exists()


def test_the_result_is_written_last(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    of = cell(task="STS13")
    finished = replace(outcome(of, 0.5), result=_no_space)
    with pytest.raises(StorageError, match=r"STS13\.json could not be written: No space left"):
        results.write(of, finished)
    names = {path.name for path in results.files(of).folder.glob("*STS13*")}
    assert names == set()
    assert not results.is_done(of, pytest.fail)


def _write(content: str, path: Path) -> None:
    path.write_text(content)


def _no_space(path: Path) -> None:
    path.write_text("half a result")
    raise OSError(errno.ENOSPC, "No space left on device")


def test_writing_is_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.json"
    write_atomically(path, lambda file: file.write_text("old"))
    with pytest.raises(StorageError):
        write_atomically(path, _no_space)
    assert path.read_text() == "old"
    assert [one.name for one in path.parent.iterdir()] == ["file.json"]


def test_what_a_killed_writer_leaves_is_not_read_and_is_removed(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, signal, sys; from lcbench.system.files import write_atomically\n"
        "write_atomically(pathlib.Path(sys.argv[1]), "
        "lambda path: (path.write_text('half'), os.kill(os.getpid(), signal.SIGKILL)))"
    )
    path = tmp_path / "Task.json"
    killed = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    (leftover,) = tmp_path.iterdir()
    assert leftover.suffix == ".tmp"
    # A file of a process that lives, and one of another host, are not ours to remove.
    alive = f"{os.getpid()}~{machine.start_time_of(os.getpid())}"
    mine = tmp_path / f".Task.json@{machine.short_name()}~{alive}.x.tmp"
    other = tmp_path / ".Task.json@0a1b2c3d~1~5.x.tmp"
    mine.touch()
    other.touch()
    remove_leftovers(tmp_path)
    assert set(tmp_path.iterdir()) == {mine, other}


def test_the_file_is_synced_before_it_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace_ = files.os.fsync, Path.replace
    monkeypatch.setattr(files.os, "fsync", lambda fd: (events.append("sync"), fsync(fd)))

    def renamed(self: Path, target: Path) -> Path:
        events.append("rename")
        return replace_(self, target)

    monkeypatch.setattr(Path, "replace", renamed)
    write_atomically(tmp_path / "file", lambda file: file.write_text("x"))
    assert events == ["sync", "rename", "sync"]


def test_a_folder_that_cannot_be_written_is_refused_by_its_key(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match=r"results_dir=.*file.* cannot be written"):
        Results(tmp_path / "file" / "runs").check_writable()


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("name", "mine"),
        ("prompts", "registry"),
        ("dtype", "float16"),
        ("splits", "validation"),
        ("subsets", ("en",)),
        ("window", 128),
        ("texts", "d" * 40),
        ("pooling", "cls"),
        ("own_code", True),
        ("dimensions", 128),
        ("special_tokens", ("eos",)),
    ],
)
def test_no_two_protocols_share_a_table(tmp_path: Path, name: str, other: Any) -> None:
    """Neither is averaged with the other, and the same task under both is no fault."""
    from lcbench.reporting.table1 import build_tables

    base = replace(PROTOCOL, texts="c" * 40)
    found = Results(tmp_path / "runs")
    for protocol, score in ((base, 0.5), (replace(base, **{name: other}), 0.75)):
        of = replace(cell(), protocol=protocol)
        finished = outcome(of, score)
        found.write(
            of, replace(finished, provenance={**finished.provenance, "window": protocol.window})
        )
    frame, warnings = read(found)
    assert warnings == []
    tables = build_tables(frame)
    blocks = [block for table in tables for block in table.blocks]
    assert sorted(block.scores["1"]["Avg"] for block in blocks) == pytest.approx([50, 75])
    assert len(tables) == (1 if name == "window" else 2)


def test_every_field_of_a_protocol_is_distinguished_above() -> None:
    fields = {"name", "prompts", "dtype", "splits", "subsets", "window", "texts", "pooling"}
    assert set(asdict(PROTOCOL)) == fields | {"own_code", "limit", "dimensions", "special_tokens"}


@pytest.mark.parametrize(
    "value", ['"abc"', "[1]", "{}", "75.3", "-7", "true", "1e308", "1" + "0" * 400]
)
def test_a_main_score_that_is_no_number_is_set_aside(results: Results, value: str) -> None:
    path = results.files(cell()).result
    path.write_text(path.read_text().replace('"main_score": 0.5', f'"main_score": {value}'))
    frame, warnings = read(results)
    assert len(frame) == 1
    assert "cannot be read" in warnings[0]


def test_a_result_of_another_task_is_left_out(results: Results) -> None:
    of = results.files(cell())
    for path in (of.result, of.provenance, of.items):
        shutil.copy(path, path.with_name(path.name.replace("STSBenchmark", "STS13")))
    frame, (warning,) = read(results)
    assert set(frame["task"]) == {"STSBenchmark"}
    assert "task STSBenchmark, not STS13" in warning
    assert not results.is_done(cell(task="STS13"), lambda _: None)


def test_a_link_to_a_folder_of_results_is_that_folder(results: Results, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(results.folder)
    linked = Results(tmp_path / "link")
    frame, warnings = read(linked)
    assert (set(frame["policy"]), warnings) == ({"1", "0.8"}, [])
    assert linked.is_done(cell(), pytest.fail)


class Full:
    """A call that fails once, as on a full disk: the one of this number; or the process ends."""

    def __init__(self, real: Any, number: int, *, ends: bool = False) -> None:
        self.real, self.number, self.ends, self.calls = real, number, ends, 0

    def __get__(self, instance: Any, owner: Any) -> Any:
        return self if instance is None else partial(self, instance)

    def __call__(self, *given: Any, **options: Any) -> Any:
        self.calls += 1
        if self.calls == self.number:
            if self.ends:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.real(*given, **options)


CALLS = [(os, "fsync"), (Path, "replace"), (Path, "mkdir"), (Path, "open")]


@pytest.mark.parametrize(("where", "name"), CALLS)
def test_wherever_it_is_killed_no_half_of_a_cell_is_left(
    tmp_path: Path, where: Any, name: str
) -> None:
    """At each of the calls that a write makes; what is left over of it is removed."""
    for number in range(1, 100):
        results, of = Results(tmp_path / str(number)), cell()
        process = os.fork()
        if not process:
            setattr(where, name, Full(getattr(where, name), number, ends=True))
            try:
                results.write(of, outcome(of, 0.5))
            finally:
                os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        frame, warnings = read(results)
        assert len(frame) <= 1
        assert warnings == []
        results.write(of, outcome(of, 0.5))
        frame, warnings = read(results)
        assert (len(frame), warnings) == (1, [])
        remove_leftovers(results.files(of).folder)
        assert not [path for path in results.folder.rglob(".*") if path.is_file()]
        if status != -signal.SIGKILL:
            break
    assert status == 0
    assert number > 1


@pytest.mark.parametrize(("where", "name"), CALLS)
def test_wherever_the_disk_is_full_no_half_of_a_cell_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Any, name: str
) -> None:
    """At each of the calls that a write makes; the next write then succeeds."""
    for number in range(1, 100):
        results, of = Results(tmp_path / str(number)), cell()
        full = Full(getattr(where, name), number)
        with monkeypatch.context() as patch:
            patch.setattr(where, name, full)
            try:
                results.write(of, outcome(of, 0.5))
            except (OSError, StorageError):
                written = 0
            else:
                written = 1
        frame, warnings = read(results)
        # Where the last step fails, it may be there already: whole.
        assert written <= len(frame) <= 1
        assert warnings == []
        results.write(of, outcome(of, 0.5))
        frame, warnings = read(results)
        assert (len(frame), warnings) == (1, [])
        if full.calls < number:
            break
    assert 1 < number < 99


def test_a_result_counts_only_in_its_own_place(results: Results) -> None:
    """Copies by hand show the scores of one cell as those of another, with a digest that fits."""
    of = cell(Constant(0.7))
    finished = outcome(of, 0.75)
    known = {"policy": "0.7", "model": of.model, "revision": of.revision}
    results.write(of, replace(finished, provenance={**finished.provenance, **known}))
    folder = results.files(of).folder
    group = results.folder / PROTOCOL.key
    revision = folder.parents[1]
    shutil.copytree(folder, results.files(cell(Constant(0.5))).folder)
    shutil.copytree(revision, revision.with_name("0" * 40))
    shutil.copytree(revision.parent, revision.parent.with_name("other__model"))
    shutil.copytree(group, group.with_name(f"{group.name}-backup"))
    frame, warnings = read(results)
    ours = frame[(frame["model"] == "some/model") & (frame["revision"] == "f" * 40)]
    assert dict(zip(ours["policy"], ours["score"], strict=True)) == {
        "1": 0.5,
        "0.7": 0.75,
        "0.8": 0.625,
    }
    assert set(frame["policy"][frame["revision"] == "0" * 40]) == {"1", "0.8"}
    told = "\n".join(warnings)
    for words in (
        "repair 0.7, not 0.5",
        f"revision {'f' * 40}, not {'0' * 40}",
        "model some__model, not other__model",
        f"protocol {group.name}, not {group.name}-backup",
    ):
        assert words in told
    # A run sets aside what lies in the place of its own cell, and makes it again.
    asides: list[str] = []
    assert not results.is_done(cell(Constant(0.5)), asides.append)
    assert "is the result of another cell" in asides[0]
    assert results.is_done(of, pytest.fail)


def test_looking_renames_nothing(tmp_path: Path) -> None:
    """Other programs have folders called results, too; and mteb's own has no provenance."""
    folder = tmp_path / "projects" / "thesis" / "results"
    for name in ("accuracy.json", "m/accuracy.json", "m/r/accuracy.json", "m/r/STS12.json"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"accuracy": 0.9}')
    before = sorted(folder.rglob("*"))
    results = Results(tmp_path / "projects")
    frame, warnings = read(results)
    assert frame.empty
    assert len(warnings) == 2
    read(results, paths=[folder / "accuracy.json"])
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("content", [None, "", "{", "[]", "[" * 100_000, '{"protocol": 3}'])
def test_a_result_whose_provenance_is_damaged_is_made_again(
    results: Results, content: str | None
) -> None:
    path = results.files(cell()).provenance
    path.unlink()
    if content is not None:
        path.write_text(content)
    frame, warnings = read(results)
    assert list(frame["policy"]) == ["0.8"]
    assert "STSBenchmark.provenance.jsonl" in warnings[0]
    assert not results.is_done(cell(), warnings.append)
    assert warnings[1].endswith("and computed again.")
    results.write(cell(), outcome(cell(), 0.5))
    assert results.is_done(cell(), pytest.fail)


@pytest.mark.parametrize("kind", ["folder", "self-link", "pipe", "deep", "huge number", "twice"])
def test_an_odd_file_in_the_place_of_a_result_stops_nothing(results: Results, kind: str) -> None:
    path = results.files(cell()).result
    path.unlink()
    entry = {"main_score": 0.5, "hf_subset": "default"}
    if kind == "folder":
        path.mkdir()
    elif kind == "self-link":
        path.symlink_to(path.name)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "deep":
        path.write_text("[" * 100_000)
    else:
        scores = [entry, entry] if kind == "twice" else [{**entry, "main_score": 10**400}]
        path.write_text(json.dumps({"task_name": "STSBenchmark", "scores": {"test": scores}}))
    frame, warnings = read(results)
    assert list(frame["policy"]) == ["0.8"]
    assert "cannot be read; it is left out" in warnings[0]
    assert os.path.lexists(path)
    assert not results.is_done(cell(), warnings.append)
    assert not os.path.lexists(path)


def test_damaged_items_are_reported_and_never_reach_pyarrow(results: Results) -> None:
    """Over some bits of a file's end pyarrow aborts the process."""
    files = results.files(cell())
    assert whole_items(files).size() == files.items.stat().st_size
    content = bytearray(files.items.read_bytes())
    content[-20] ^= 1
    files.items.write_bytes(content)
    with pytest.raises(ItemsError, match="changed after they were written"):
        whole_items(files)
    frame, warnings = read(results)
    assert sorted(frame["score"]) == [0.5, 0.625]
    (warning,) = warnings
    assert warning.startswith(str(files.items))
    files.items.unlink()
    assert "is missing" in read(results)[1][0]
    # An older provenance has no digest of them.
    known = json.loads(files.provenance.read_text())
    files.provenance.write_text(json.dumps({**known, ITEMS_DIGEST: None}))
    files.items.write_bytes(content)
    assert read(results)[1] == []


def test_what_cannot_be_listed_is_named(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = results.files(cell(Constant(0.8))).folder
    scandir = os.scandir

    def refused(path: Any) -> Any:
        if Path(path) == closed:
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("lcbench.results.folder.os.scandir", refused)
    frame, warnings = read(results)
    assert list(frame["policy"]) == ["1"]
    assert warnings == [f"{closed} cannot be listed (Permission denied): its results are left out."]


def test_a_broken_result_that_cannot_be_renamed_is_reported(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = results.files(cell()).result
    path.write_text("{")

    def refused(self: Path, target: Path) -> Path:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "replace", refused)
    assert len(read(results)[1]) == 1
    with pytest.raises(StorageError, match="cannot be set aside: Permission denied"):
        results.is_done(cell(), pytest.fail)


def test_a_good_result_that_came_in_between_goes_back_without_hard_links(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = results.files(cell()).result
    good = path.read_bytes()

    def refused(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    assert _set_aside(path, b"{") is None
    assert path.read_bytes() == good
    assert not list(path.parent.glob("*.broken-*"))


def test_a_long_name_has_a_place_and_a_report_shows_all_of_it(tmp_path: Path) -> None:
    """τ by layer for 36 layers has 350 characters or more, a folder's name at most 255 bytes."""
    policy = ByLayer(tuple((layer, 0.8 + (layer + 1) / 8192) for layer in range(36)))
    twin = ByLayer((*policy.steps[:-1], (35, 0.5)))
    assert len(policy.canonical) > 350
    of_folder = "local/" + "長い名" * 28
    results, scores = Results(tmp_path / "runs"), {}
    for model, one, score in (
        (of_folder, BASELINE, 0.25),
        (of_folder, policy, 0.5),
        (of_folder, twin, 0.75),
    ):
        asked = replace(cell(one), model=model)
        scores[one.canonical] = score
        finished = outcome(asked, score)
        named = {"model": model, "revision": asked.revision, "policy": one.canonical}
        finished = replace(finished, provenance={**finished.provenance, **named})
        assert results.write(asked, finished)
        results.write_failure(asked, Failure(1, False, "reason", "where", "at", "trace"))
        assert claims.Claims().take(results.files(asked).folder, asked.task, 0) is not None
        assert results.is_done(asked, pytest.fail)
    frame, warnings = read(results)
    assert dict(zip(frame["policy"], frame["score"], strict=True)) == scores
    assert (set(frame["model"]), warnings) == ({of_folder}, [])
    for path in results.folder.rglob("*"):
        assert len(os.fsencode(path.name)) <= 200
    (folder,) = results.folder.glob("*/results/*")
    assert folder.name.startswith("local__長い名")
    cache = mteb.ResultCache(cache_path=results.folder / PROTOCOL.key)
    loaded = cache.load_results(include_remote=False, load_experiments="match_name")
    found = {one.experiment_name: one.task_results[0].get_score() for one in loaded.model_results}
    # mteb has names of its own for what is so long; the folders are called by them.
    here, there = (results.files(replace(cell(one), model=of_folder)) for one in (policy, twin))
    assert found == {None: 0.25, here.folder.name: 0.5, there.folder.name: 0.75}
    # In another's place it is still seen to be another's.
    shutil.rmtree(there.folder)
    here.folder.rename(there.folder)
    frame, warnings = read(results)
    assert list(frame["policy"]) == ["1"]
    assert f"is the result of another cell: repair {policy.canonical}" in warnings[0]


@pytest.mark.parametrize("name", ["n" * 255, "長" * 85, "名.jsonl" * 28])
def test_a_file_of_the_longest_name_is_written(name: str, tmp_path: Path) -> None:
    """A temporary name says whose it is besides, and has to fit as well."""
    write_atomically(tmp_path / name, lambda path: path.write_text("whole", encoding="utf-8"))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_assumed_pooling_is_in_the_notes_and_refuses_no_older_baseline(
    results: Results,
) -> None:
    from lcbench.reporting.table1 import build_tables

    of = cell(Constant(0.7))
    finished = outcome(of, 0.75)
    results.write(
        of, replace(finished, provenance={**finished.provenance, "assumed_pooling": "mean"})
    )
    frame, _ = read(results)
    (table,) = build_tables(frame)
    assert table.blocks[0].scores["0.7"]["Avg"] == pytest.approx(75)
    assert any("mean pooling is assumed" in note for note in table.notes)
    assert not any("refused" in note for note in table.notes)


def older_items(gold: list[str | None], relevant: list[Any] | None = None) -> pa.Table:
    """Items of two texts, or, where there are relevant documents, of two queries."""
    rows = [
        {"split": "test", "subset": "default", "id": str(i), "gold": label, "score": 0.5}
        for i, label in enumerate(gold)
    ]
    for row, documents in zip(rows, relevant or (), strict=False):
        row["relevant"] = documents
    return pa.Table.from_pylist(rows, ITEMS_SCHEMA)


def items_of_data(results: Results) -> dict[str, str | None]:
    """The digests that cells are compared by, by policy."""
    frame, warnings = read(results)
    assert warnings == []
    return {row.policy: row.conditions.get(ITEMS) for row in frame.itertuples()}


def test_an_older_result_is_compared_by_the_items_that_it_has(tmp_path: Path) -> None:
    """Whether the other is as old or not."""
    results = Results(tmp_path)
    same, others = older_items(["1.0", "2.0"]), older_items(["2.0", "1.0"])
    digest = digest_of_items(same, relevant=True)
    for policy, items, more in (
        (BASELINE, same, {}),
        (Constant(0.9), same, {ITEMS: digest}),
        (Constant(0.8), others, {}),
        (Constant(0.95), same.take([1, 0]), {}),
        # The items that are scored go by the model.
        (Constant(0.7), same, {ITEMS: None}),
        (Constant(0.6), None, {}),
    ):
        finished = outcome(cell(policy), 0.5)
        provenance = {**finished.provenance, **more}
        results.write(cell(policy), replace(finished, items=items, provenance=provenance))
    found = items_of_data(results)
    assert found["1"] == found["0.9"] == found["0.95"] == digest
    assert found["0.8"] == digest_of_items(others, relevant=True) != digest
    assert found["0.7"] is found["0.6"] is None
    frame, _ = read(results)
    (table,) = build_tables(frame)
    improvements = {policy: row["STS"] for policy, row in table.blocks[0].improvements.items()}
    assert improvements["0.8"] is None
    assert {improvements[tau] for tau in ("0.95", "0.9", "0.7", "0.6")} == {0.0}
    refused = "τ = 0.8, STS: refused STSBenchmark (the items are not those of the baseline)"
    assert any(refused in note for note in table.notes)


def test_older_queries_are_distinguished_by_their_relevant_documents(tmp_path: Path) -> None:
    def document(name: str, rank: int) -> dict[str, Any]:
        return {"id": name, "grade": 1, "tokens": 3, "rank": rank}

    results = Results(tmp_path)
    gold: list[str | None] = [None, None]
    kept = {
        BASELINE: [[document("a", 1), document("b", 2)], []],
        Constant(0.9): [[document("b", 1), document("a", 5)], []],
        Constant(0.8): [[document("a", 1)], []],
    }
    for policy, relevant in kept.items():
        items = older_items(gold, relevant)
        results.write(cell(policy), replace(outcome(cell(policy), 0.5), items=items))
    found = items_of_data(results)
    assert found["1"] is not None
    assert found["1"] == found["0.9"] != found["0.8"]


@pytest.mark.parametrize("kind", ["summaries", "sub-queries", "aggregate", "other columns"])
def test_older_items_that_say_nothing_of_the_data_are_not_compared(
    kind: str, tmp_path: Path
) -> None:
    results = Results(tmp_path)
    items = older_items(["1", "2"])
    if kind == "summaries":
        items = older_items([None, None])
    elif kind == "aggregate":
        items = items.set_column(1, "subset", pa.array(["One", "Two"]))
    elif kind == "other columns":
        items = items.drop_columns(["gold"])
    finished = replace(outcome(cell(), 0.5), items=items)
    results.write(cell(), finished)
    path = results.files(cell()).result
    if kind == "sub-queries":
        content = json.loads(path.read_text())
        content["scores"]["test"][0]["max_over_subqueries_map_at_1000"] = 0.5
        path.write_text(json.dumps(content))
    assert items_of_data(results) == {"1": None}


def test_the_recorded_cells_have_the_digest_that_their_items_give(tmp_path: Path) -> None:
    """As written with the result, and as taken of the file: of texts, queries and sets."""
    recorded = Path(__file__).parents[2] / "results" / "demo" / "cells"
    written = {
        row.files.result.relative_to(recorded): row.conditions[ITEMS]
        for row in read(Results(recorded))[0].itertuples()
    }
    assert len(written) > 20
    copy = tmp_path / "cells"
    shutil.copytree(recorded, copy)
    for path in copy.rglob("*.provenance.jsonl"):
        content = json.loads(path.read_text(encoding="utf-8"))
        del content[ITEMS]
        path.write_text(json.dumps(content), encoding="utf-8")
    taken = {
        row.files.result.relative_to(copy): row.conditions.get(ITEMS)
        for row in read(Results(copy))[0].itertuples()
    }
    assert taken == written

"""`python -m lcbench status`: fast, light, and right about what it is asked for."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sweep_files import RESULT, line, plan, write_claim, write_failure, write_result

from lcbench.run.claims import here

HEAVY = ("mteb", "torch", "pandas", "pyarrow", "datasets", "transformers", "sentence_transformers")
# Runs the command and prints which of these it has imported.
IMPORTS = f"""
import runpy, sys
sys.argv.insert(1, "status")
try:
    runpy.run_module("lcbench", run_name="__main__")
except SystemExit as stop:
    print("status", stop.code, [name for name in {HEAVY!r} if name in sys.modules])
"""
FAILURE = "attempts: 3\nkind: deterministic\nreason: ValueError: [b]no[/b]\n\nTraceback …\n"


def make(folder: Path, *, count: int = 6) -> Path:
    """Plan elements 0 to 5; 0 is done, 1 has failed, 3 runs, the others wait."""
    sweep = plan(folder, [line(n, f"T{n}", element=n) for n in range(count)])
    write_result(sweep, 0)
    write_failure(sweep, 1, FAILURE)
    write_claim(sweep, 3, here())
    return sweep.folder


def test_the_last_sweep_is_shown(run, tmp_path: Path) -> None:
    make(tmp_path / "runs")
    os.utime(tmp_path / "runs/sweeps/demo-01234567/manifest.jsonl", (1e9, 1e9))
    plan(tmp_path / "runs", [line(n, f"T{n}") for n in range(2)], label="last")
    done = run("results_dir=runs", command="status")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("last-01234567, planned 2026-01-02 ")
    assert "1 done, 0 running, 1 failed, 0 missing of 2." in " ".join(done.stdout.split())
    assert "T1 · 3 times, not transient: ValueError: [b]no[/b]" in done.stdout
    path = "runs/paper-0a1b2c3d/results/org__model/main/T1.failure.txt"
    assert f"    {path}\n" in done.stdout
    assert (tmp_path / path).read_text() == FAILURE
    named = run("manifest=runs/sweeps/demo-01234567", command="status")
    assert (named.returncode, named.stderr) == (0, "")
    assert "1 done, 1 running, 1 failed, 3 missing of 6." in " ".join(named.stdout.split())
    # Nothing is written by looking.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


@pytest.mark.parametrize("spelling", ["--failed", "failed=true"])
def test_the_elements_to_submit_again(run, tmp_path: Path, spelling: str) -> None:
    make(tmp_path / "runs")
    done = run(spelling, "results_dir=runs", command="status")
    assert (done.returncode, done.stdout, done.stderr) == (0, "1-2,4-5\n", "")


def test_nothing_to_submit_is_nothing(run, tmp_path: Path) -> None:
    sweep = plan(tmp_path / "runs", [line(0, "A")])
    write_result(sweep, 0)
    done = run("--failed", "results_dir=runs", command="status")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_flags_are_in_the_help(run) -> None:
    done = run("--help", command="status")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--failed and --watch are short for failed=true and watch=true." in done.stdout
    assert "results_dir: results/runs" in done.stdout


def cut(folder: Path) -> None:
    path = make(folder) / "manifest.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def of_the_future(folder: Path) -> None:
    path = make(folder) / "manifest.jsonl"
    path.write_text(path.read_text().replace('"format": 1', '"format": 99', 1))


def nothing(folder: Path) -> None:
    folder.mkdir()


@pytest.mark.parametrize(
    ("prepare", "arguments", "message"),
    [
        (nothing, [], "no sweep was planned or run there. `python -m lcbench plan sweep=NAME`"),
        (nothing, ["results_dir=elsewhere"], "results_dir=elsewhere: no sweep was planned or run"),
        (nothing, ["--failed"], "results_dir=runs: no sweep was planned or run there."),
        (nothing, ["manifest=none"], "manifest=none cannot be read: No such file or directory"),
        (make, ["manifest=runs"], "manifest=runs cannot be read: No such file or directory"),
        (cut, [], "is incomplete (ValueError: 5 of 6 cells). Plan the sweep again"),
        (of_the_future, [], "was made by another version of lcbench (format 99, this one reads 1)"),
        (make, ["--failed", "--watch"], "failed=true and watch=true are mutually exclusive"),
        (make, ["failed=perhaps"], "failed=perhaps"),
        (make, ["faild=true"], "faild is not a key. Did you mean failed?"),
    ],
)
def test_a_wrong_request(
    typed, tmp_path: Path, prepare: Callable[[Path], None], arguments: list[str], message: str
) -> None:
    prepare(tmp_path / "runs")
    named = any(one.startswith("results_dir=") for one in arguments)
    request = arguments if named else ["results_dir=runs", *arguments]
    done = typed(*request, command="status")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("lcbench: error: ")
    assert message in done.stderr


def test_without_a_terminal_it_is_shown_once(run, tmp_path: Path) -> None:
    make(tmp_path / "runs")
    done = run("--watch", "results_dir=runs", command="status")
    assert done.returncode == 0
    assert done.stdout.count("demo-01234567, planned ") == 1
    assert done.stderr == (
        "lcbench: warning: watch=true needs a terminal; showing the status once.\n"
    )


class Terminal:
    """The command on a terminal of its own, which shows what it prints."""

    def __init__(self, folder: Path) -> None:
        self._inside, outside = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lcbench", "status", "--watch", "results_dir=runs"],
            cwd=folder,
            stdin=outside,
            stdout=outside,
            stderr=outside,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "200", "LINES": "40"},
            start_new_session=True,
        )
        os.close(outside)
        self.shown = ""

    def read_until(self, text: str) -> None:
        """Read on until a text is shown."""
        begin = len(self.shown)
        while text not in self.shown[begin:]:
            more = self._read()
            assert more, f"{text} is not in {self.shown[begin:]}"
            self.shown += more

    def end(self) -> int:
        """Read to the end and return the exit status."""
        while more := self._read():
            self.shown += more
        os.close(self._inside)
        return self.process.wait(60)

    def _read(self) -> str:
        if not select.select([self._inside], [], [], 60)[0]:
            self.process.kill()
            pytest.fail(f"nothing happens any more after: {self.shown}")
        try:
            return os.read(self._inside, 65536).decode(errors="replace")
        except OSError:
            return ""


@pytest.mark.parametrize("fails", [False, True])
def test_watching_ends_when_nothing_is_left(tmp_path: Path, fails: bool) -> None:
    sweep = plan(tmp_path / "runs", [line(0, "A"), line(1, "B")])
    write_result(sweep, 0)
    terminal = Terminal(tmp_path)
    terminal.read_until("1 missing")
    if fails:
        write_failure(sweep, 1, FAILURE)
    else:
        write_result(sweep, 1)
    assert terminal.end() == (1 if fails else 0)
    assert ("1 failed" if fails else "All cells are done.") in terminal.shown
    assert "Traceback" not in terminal.shown


def test_watching_ends_with_an_interrupt(tmp_path: Path) -> None:
    make(tmp_path / "runs")
    terminal = Terminal(tmp_path)
    terminal.read_until("3 missing")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 0
    assert "error" not in terminal.shown.lower().replace("valueerror", "")


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    make(tmp_path / "runs")
    for arguments in (["results_dir=runs"], ["results_dir=runs", "--failed"]):
        done = subprocess.run(
            [sys.executable, "-c", IMPORTS, *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=True,
        )
        assert done.stdout.splitlines()[-1] == "status 0 []"


@pytest.mark.parametrize(
    ("models", "most"),
    [(2, 60), pytest.param(20, 3, marks=[pytest.mark.alone, pytest.mark.exhaustive])],
)
def test_ten_thousand_results_take_less_than_three_seconds(
    run, tmp_path: Path, models: int, most: float
) -> None:
    """In two hundred folders of fifty tasks, with what else lies with a result.

    A tenth of them on a machine that does other things as well.
    """
    folders = [
        f"paper-0a1b2c3d/results/org__m{model}/main/experiments/tau_0.{tau}"
        for model in range(models)
        for tau in range(1, 11)
    ]
    lines = [
        line(50 * number + task, f"T{task}", element=number, folder=folder)
        for number, folder in enumerate(folders)
        for task in range(50)
    ]
    sweep = plan(tmp_path / "runs", lines)
    record = json.dumps(
        {
            "seconds": 120.0,
            "seconds_wait": 0.0,
            "seconds_encode": 100.0,
            "hardware": {"device": "cuda:0", "cores": 8},
        }
    )
    content = json.dumps({"task_name": "T", "scores": RESULT * 25}, indent=2)
    assert 2800 < len(content) < 3500
    for cell in lines:
        path = sweep.results_dir / cell.folder / f"{cell.task}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.with_suffix(".provenance.jsonl").write_text(record)
        path.with_suffix(".items.parquet").touch()
    (sweep.results_dir / folders[7] / "T7.json").unlink()
    started = time.monotonic()
    done = run("results_dir=runs", command="status", fresh=True)
    seconds = time.monotonic() - started
    print(f"\n{len(lines):,} results: {seconds:.2f} s")
    assert (done.returncode, done.stderr) == (0, "")
    shown = " ".join(done.stdout.split())
    done_cells = len(lines) - 1
    assert f"{done_cells} done, 0 running, 0 failed, 1 missing of {len(lines)}." in shown
    # What was predicted took 1.0 times as long on a GPU: encoding hides the scoring.
    assert "About 1.7 minutes of work left for one process; no process is running." in shown
    whole = f"0-6,8-{len(folders) - 1} {len(lines) - 50} {len(lines) - 50} all done"
    assert f"{whole} 7 50 49 1 1.7 minutes" in shown
    assert seconds < most

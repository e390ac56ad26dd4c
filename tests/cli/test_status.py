"""How a sweep stands: every state from files made by hand, and the time left by hand."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sweep_files import FOLDER, RESULT, line, plan, write_claim, write_failure, write_result

from lcbench.cli import status
from lcbench.cli.status import view
from lcbench.errors import LcbenchError
from lcbench.plan.manifest import Manifest, ranges
from lcbench.results.failure import Failure
from lcbench.run import state as run_state
from lcbench.run.claims import LEASE_SECONDS, Claims, Holder, here
from lcbench.run.state import State, state_of, time_left, to_submit

OOM = Failure(
    attempts=2,
    transient=True,
    reason="OutOfMemoryError: tried to allocate 2 GiB",
    where="node7, process 5",
    at="2026-01-02T04:00:00+00:00",
    traceback="Traceback …\n",
)
HOUR = 3600.0


def kinds(state: State) -> list[str]:
    return [cell.kind for cell in state.cells]


def shown(state: State, width: int = 100, **options: Any) -> str:
    file = StringIO()
    Console(file=file, width=width, highlight=False).print(view(state, **options), soft_wrap=True)
    return file.getvalue()


def began_ago(seconds: float) -> str:
    return datetime.fromtimestamp(time.time() - seconds, UTC).isoformat()


def elsewhere(seconds: float = 0.0, **changed: Any) -> Holder:
    """Return a process of another machine that began so long ago."""
    return replace(
        here(), machine="another", host="node7", process=5, began=began_ago(seconds), **changed
    )


@pytest.fixture(scope="module")
def dead() -> Holder:
    """A process of this machine that has ended."""
    program = (
        "import json; from dataclasses import asdict; from lcbench.run.claims import here; "
        "print(json.dumps(asdict(here())))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return Holder(**json.loads(ended.stdout))


def one(tmp_path: Path) -> Manifest:
    return plan(tmp_path, [line(0, "A")])


def test_nothing_is_there_yet(tmp_path: Path) -> None:
    state = state_of(one(tmp_path))
    assert kinds(state) == ["missing"]
    assert state.counts == {"done": 0, "running": 0, "failed": 0, "missing": 1}
    cell = state.cells[0]
    assert (cell.claim, cell.failure, cell.is_broken) == (None, None, False)
    assert state.manifest.folder.parent == tmp_path / "sweeps"


@pytest.mark.parametrize("content", [RESULT, RESULT + "\n \n", "}"])
def test_done(tmp_path: Path, content: str) -> None:
    sweep = one(tmp_path)
    write_result(sweep, 0, content, at=1234.5)
    (cell,) = state_of(sweep).cells
    assert (cell.kind, cell.finished, cell.is_broken) == ("done", 1234.5, False)


@pytest.mark.parametrize("content", ["", " \n", RESULT[:-4], RESULT[:30]])
def test_a_broken_result_is_missing(tmp_path: Path, content: str) -> None:
    sweep = one(tmp_path)
    path = write_result(sweep, 0, content)
    state = state_of(sweep)
    (cell,) = state.cells
    assert (cell.kind, cell.finished, cell.is_broken) == ("missing", None, True)
    text = shown(state, width=200)
    assert "0 done, 0 running, 0 failed, 1 missing of 1" in text
    assert "broken: the next run sets these aside and computes them again" in text
    assert str(path) in text
    # It was looked at, and not touched.
    assert path.read_text() == content


def test_running_here(tmp_path: Path) -> None:
    sweep = one(tmp_path)
    with Claims() as claims:
        assert claims.take(sweep.results_dir / FOLDER, "A", over=0)
        state = state_of(sweep)
        (cell,) = state.cells
        assert (cell.kind, cell.silent) == ("running", None)
        assert cell.claim is not None
        assert cell.claim.holder is not None
        assert cell.claim.holder.process == os.getpid()
        assert cell.held is not None
        # `began` is in whole seconds.
        assert 0 <= cell.held < 60
        text = shown(state)
        assert f"model, τ = 1, A · {cell.claim.holder.host}, process {os.getpid()} · " in text
        began = datetime.fromisoformat(cell.claim.holder.began).astimezone()
        assert f"since {began:%H:%M} (0:0" in text
    assert kinds(state_of(sweep)) == ["missing"]


def test_a_result_counts_more_than_its_claim(tmp_path: Path) -> None:
    sweep = one(tmp_path)
    write_claim(sweep, 0, here())
    write_result(sweep, 0)
    assert kinds(state_of(sweep)) == ["done"]


def test_an_age_is_by_the_holders_clock(tmp_path: Path) -> None:
    """Another machine's clock may be an hour behind: it still began 90 seconds before its touch."""
    sweep = one(tmp_path)
    now = time.time()
    began = datetime.fromtimestamp(now - HOUR, UTC).isoformat()
    holder = replace(elsewhere(job="17_3"), began=began)
    write_claim(sweep, 0, holder, touched=now - HOUR + 90)
    state = state_of(sweep)
    (cell,) = state.cells
    assert cell.kind == "running"
    assert cell.held == pytest.approx(90, abs=0.01)
    assert cell.silent == pytest.approx(HOUR - 90, abs=8)
    text = shown(state)
    assert "node7, process 5, Slurm job 17_3 · since " in text
    assert "(1:30) · silent for 58:3" in text
    assert "left with 1 process running (1 of them silent)." in text


@pytest.mark.parametrize(
    ("untouched", "is_silent"), [(-30.0, False), (100.0, False), (151.0, True)]
)
def test_silence_begins_with_the_lease(tmp_path: Path, untouched: float, is_silent: bool) -> None:
    assert LEASE_SECONDS == 150
    sweep = one(tmp_path)
    write_claim(sweep, 0, elsewhere(200), touched=time.time() - untouched)
    state = state_of(sweep)
    assert kinds(state) == ["running"]
    assert (state.cells[0].silent is not None) is is_silent
    assert ("silent for" in shown(state)) is is_silent


def test_a_result_that_has_lost_its_provenance_is_not_done(tmp_path: Path) -> None:
    """A run sets it aside and computes it again, so it is not to be called done before."""
    sweep = one(tmp_path)
    write_result(sweep, 0).with_suffix(".provenance.jsonl").unlink()
    (cell,) = state_of(sweep).cells
    assert (cell.kind, cell.finished, cell.is_broken) == ("missing", None, True)
    assert "broken: the next run sets these aside and computes them again" in shown(state_of(sweep))


def test_a_claim_that_does_not_say_whose_it_is(tmp_path: Path) -> None:
    sweep = one(tmp_path)
    path = write_claim(sweep, 0, here())
    path.unlink()
    path.write_text("not JSON")
    state = state_of(sweep)
    assert kinds(state) == ["running"]
    assert state.cells[0].held is None
    assert "owner unknown" in shown(state)


def test_interrupted_is_missing(tmp_path: Path, dead: Holder) -> None:
    sweep = one(tmp_path)
    write_claim(sweep, 0, dead)
    state = state_of(sweep)
    assert kinds(state) == ["missing"]
    text = shown(state)
    assert "interrupted: the process has ended; the next run computes these again" in text
    assert f"model, τ = 1, A · {dead.host}, process {dead.process}" in text


def test_the_last_claim_counts(tmp_path: Path, dead: Holder) -> None:
    """Whoever came later saw that the earlier ones were over, also on another machine."""
    sweep = plan(tmp_path, [line(0, "A"), line(1, "B")])
    write_claim(sweep, 0, dead, number=9)
    write_claim(sweep, 0, here(), number=10)
    write_claim(sweep, 1, elsewhere(), number=1)
    write_claim(sweep, 1, dead, number=2)
    assert kinds(state_of(sweep)) == ["running", "missing"]


def test_failed(tmp_path: Path, dead: Holder) -> None:
    sweep = one(tmp_path)
    path = write_failure(sweep, 0, str(OOM))
    # Of the attempt that failed: its process did not come to remove it.
    write_claim(sweep, 0, here(), number=2)
    state = state_of(sweep)
    (cell,) = state.cells
    assert (cell.kind, cell.failure, cell.claim) == ("failed", OOM, None)
    text = shown(state, width=300)
    expected = "model, τ = 1, A · 2 times, transient: OutOfMemoryError: tried to allocate 2 GiB"
    assert expected in text
    assert str(path) in text
    # The next attempt died without a word.
    write_claim(sweep, 0, dead, number=3)
    state = state_of(sweep)
    assert kinds(state) == ["failed"]
    assert "interrupted" not in shown(state)


def test_a_reason_is_one_line_and_a_path_is_whole(tmp_path: Path) -> None:
    sweep = one(tmp_path)
    path = write_failure(sweep, 0, str(replace(OOM, reason="ValueError: " + "long " * 50)))
    lines = shown(state_of(sweep), width=60).splitlines()
    assert (
        lines[-2]
        == f"  model, τ = 1, A · 2 times, transient: ValueError: {'long ' * 50}"[:59] + "…"
    )
    assert lines[-1] == f"    {path}"
    assert len(lines[-1]) > 60


def test_a_failed_cell_that_is_tried_again_is_running(tmp_path: Path) -> None:
    sweep = one(tmp_path)
    write_failure(sweep, 0, str(OOM))
    write_claim(sweep, 0, here(), number=3)
    assert kinds(state_of(sweep)) == ["running"]


def test_a_failure_of_an_older_version(tmp_path: Path) -> None:
    sweep = one(tmp_path)
    write_failure(sweep, 0, "Traceback (most recent call last):\n  …\nKeyError: 'x'\n")
    assert "A · once, not transient: KeyError: 'x'" in shown(state_of(sweep))


def test_markup_in_a_reason_is_text(tmp_path: Path) -> None:
    sweep = plan(tmp_path, [line(0, "A", model="org/[bold]x[bold]"), line(1, "B")])
    reason = "[red]no[/red] [/nothing] [link=https://example.org]x \x1b[31mred\x07"
    write_failure(sweep, 0, str(replace(OOM, reason=reason)))
    text = shown(state_of(sweep), width=300)
    assert "[red]no[/red] [/nothing] [link=https://example.org]x \\x1b[31mred\\x07" in text
    assert "\x1b" not in text
    # In the table and in the list.
    assert text.count("[bold]x[bold]") == 2


def test_a_folder_is_listed_once_and_only_failures_are_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [f"{FOLDER}/experiments/tau_0.{n}" for n in range(1, 4)]
    lines = [
        line(5 * k + n, f"T{n}", folder=name) for k, name in enumerate(folders) for n in range(5)
    ]
    sweep = plan(tmp_path, lines)
    for index in (0, 1, 5, 6, 7):
        write_result(sweep, index)
    write_claim(sweep, 2, here())
    write_failure(sweep, 0, str(OOM))
    write_failure(sweep, 3, str(OOM))
    listed: list[str] = []
    parsed: list[str] = []
    scandir, read_failure = os.scandir, run_state.read_failure

    def counting_scandir(path: Any) -> Any:
        listed.append(str(path))
        return scandir(path)

    def counting_read(path: Path) -> Failure | None:
        parsed.append(path.name)
        return read_failure(path)

    monkeypatch.setattr(os, "scandir", counting_scandir)
    monkeypatch.setattr(os, "listdir", lambda path: pytest.fail(f"{path} is listed again"))
    monkeypatch.setattr(run_state, "read_failure", counting_read)
    state = state_of(sweep)
    assert state.counts == {"done": 5, "running": 1, "failed": 1, "missing": 8}
    assert listed == [str(tmp_path / name) for name in folders]
    assert parsed == ["T3.failure.txt"]


def test_a_result_is_read_once_while_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = plan(tmp_path, [line(0, "A"), line(1, "B")])
    path = write_result(sweep, 0, at=1000.0)
    write_result(sweep, 1, "{", at=1000.0)
    seen: dict[tuple[str, int], float] = {}
    assert kinds(state_of(sweep, seen)) == ["done", "missing"]
    assert list(seen.values()) == [1000.0]
    looked: list[str] = []
    written = run_state._written

    def counting(path: Path) -> float | None:
        looked.append(path.name)
        return written(path)

    monkeypatch.setattr(run_state, "_written", counting)
    assert kinds(state_of(sweep, seen)) == ["done", "missing"]
    assert looked == ["B.json"]
    # It gives way to another.
    new = path.with_name("new")
    new.write_text("{")
    new.replace(path)
    assert kinds(state_of(sweep, seen)) == ["missing", "missing"]


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = one(tmp_path)

    def refuse(path: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(LcbenchError, match=r"org__model/main cannot be read: Permission denied"):
        state_of(sweep)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([3, 7, 9, 10, 11, 12], "3,7,9-12"),
        ([12, 3, 9, 11, 10, 7, 3], "3,7,9-12"),
        ([0, 1], "0-1"),
        ([5], "5"),
        ([], ""),
        (range(1000), "0-999"),
    ],
)
def test_ranges(numbers: list[int], text: str) -> None:
    assert ranges(numbers) == text


def elements(tmp_path: Path, count: int, cells: int = 1) -> Manifest:
    """Plan so many array elements of so many cells."""
    return plan(
        tmp_path,
        [line(cells * e + n, f"T{e}x{n}", element=e) for e in range(count) for n in range(cells)],
    )


def test_to_submit(tmp_path: Path, dead: Holder) -> None:
    sweep = elements(tmp_path, 8, cells=2)
    write_result(sweep, 0)
    write_result(sweep, 1)
    write_result(sweep, 2)  # element 1: done and running
    write_claim(sweep, 3, here())
    write_result(sweep, 4)  # element 2: done and failed
    write_failure(sweep, 5, str(OOM))
    write_claim(sweep, 6, here())  # element 3: running and missing
    write_claim(sweep, 8, dead)  # element 4: interrupted and done
    write_result(sweep, 9)
    write_result(sweep, 10)  # element 5: done, and running on a node that says nothing any more
    write_claim(sweep, 11, elsewhere(HOUR, job="17_5"), touched=time.time() - HOUR)
    write_result(sweep, 12)  # element 6: done, and running on another
    write_claim(sweep, 13, elsewhere(HOUR, job="17_6"), touched=time.time() - 20)
    state = state_of(sweep)
    assert to_submit(sweep, state, frozenset()) == [2, 3, 4, 5, 7]
    assert to_submit(sweep, state, {3, 5, 6}) == [2, 4, 7]
    assert to_submit(sweep, state, range(8)) == []


def record(encode: float, others: float, wait: float, device: str = "cpu") -> dict[str, Any]:
    return {
        "seconds": encode + others + wait,
        "seconds_wait": wait,
        "seconds_encode": encode,
        "hardware": {"device": device, "cores": 4},
    }


def half_done(tmp_path: Path, scoring: int | None, device: str = "cpu", **done: Any) -> State:
    """Two done, each 50 s of encoding and 70 s of scoring; one runs for 30 s, one failed, two wait.

    Each is predicted to take 100 s, and of the last nothing is known.
    """
    lines = [line(n, f"T{n}") for n in range(5)] + [line(5, "T5", seconds=None)]
    sweep = plan(tmp_path, lines, scoring=scoring)
    for index in (0, 1):
        write_result(sweep, index, record=record(50, 70, 1000, device), **done)
    write_claim(sweep, 2, replace(here(), began=began_ago(30)))
    write_failure(sweep, 3, str(OOM))
    return state_of(sweep)


@pytest.mark.parametrize(
    ("scoring", "device", "scale"),
    [
        # One after the other: 2 × (50 + 70) for 200.
        (0, "cpu", 1.2),
        # Beside the encoding, on four cores: 100 + 140 / 4.
        (2, "cpu", 0.675),
        # Beside a GPU's encoding: the longer of 100 and 140 / 2, or 140 / 1.
        (2, "cuda:0", 0.5),
        (1, "cuda:0", 0.7),
        # Left to the machine: as many as cores.
        (None, "cuda:0", 0.5),
    ],
)
def test_time_left_is_scaled_by_what_finished(
    tmp_path: Path, scoring: int | None, device: str, scale: float
) -> None:
    left = time_left(half_done(tmp_path, scoring, device))
    assert left.scale == pytest.approx(scale)
    # The failed one and one that waits, and what the running one has not had.
    work = 2 * 100 * scale + (100 * scale - 30)
    assert left.work == pytest.approx(work, abs=2)
    assert left.wall == left.work
    assert (left.processes, left.at_least) == (1, True)


def test_what_was_there_before_the_plan_scales_nothing(tmp_path: Path) -> None:
    planned = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
    assert time_left(half_done(tmp_path / "a", 0, at=planned - 1)).scale == 1
    assert time_left(half_done(tmp_path / "b", 0, at=planned + 1)).scale == pytest.approx(1.2)


def test_the_last_hundred_scale(tmp_path: Path) -> None:
    sweep = plan(tmp_path, [line(n, f"T{n}", seconds=1.0) for n in range(152)], scoring=0)
    for index in range(150):
        # The later half took twice, the earlier a thousand times what was predicted.
        write_result(sweep, index, record=record(2 if index >= 50 else 1000, 0, 0), at=2e9 + index)
    left = time_left(state_of(sweep))
    assert (left.scale, left.work) == (2, 4)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        json.dumps({**record(50, 70, 0), "seconds_encode": None}),
        json.dumps({**record(50, 70, 0), "hardware": None}),
        json.dumps({**record(50, 70, 0), "seconds": float("inf")}),
        json.dumps({**record(50, 70, 0), "seconds_encode": float("nan")}),
    ],
)
def test_a_provenance_that_says_nothing_scales_nothing(tmp_path: Path, content: str) -> None:
    sweep = plan(tmp_path, [line(0, "A"), line(1, "B")], scoring=0)
    path = write_result(sweep, 0)
    assert time_left(state_of(sweep)).scale == 1
    path.with_suffix(".provenance.jsonl").write_text(content)
    assert time_left(state_of(sweep)).scale == 1


def test_seconds_say_nothing_of_hours(tmp_path: Path) -> None:
    """A few small cells, which take ten times what was predicted, do not make weeks of days."""
    sweep = plan(tmp_path, [line(0, "A", seconds=9.9), line(1, "B")], scoring=0)
    write_result(sweep, 0, record=record(99, 0, 0))
    assert time_left(state_of(sweep)).scale == 1


def test_processes_share_the_work_but_not_an_element(tmp_path: Path) -> None:
    lines = [
        line(0, "A", seconds=10.0),
        line(1, "B", seconds=100.0),
        line(2, "C", seconds=200.0),
        line(3, "D", seconds=50.0),
    ]
    now = time.time()
    for folder, elements_, wall in (
        # 360 s of two processes; but one of them has 300 before it, and a cell takes 200.
        ("array", (0, 1, 1, 2), 300),
        ("shared", (0, 0, 0, 0), 200),
        ("even", (0, 1, 2, 3), 200),
    ):
        cells = [replace(one, element=e) for one, e in zip(lines, elements_, strict=True)]
        sweep = plan(tmp_path / folder, cells)
        # One process has two cells: it encodes one and scores the other.
        write_claim(sweep, 0, elsewhere(0, token="a"), touched=now - 5)
        write_claim(sweep, 1, elsewhere(0, token="b"), touched=now - 5)
        write_claim(sweep, 3, elsewhere(0, token="b"), touched=now - 5)
        left = time_left(state_of(sweep))
        assert (left.work, left.wall, left.processes) == (360, wall, 2)
    cells = [line(n, f"T{n}", seconds=100.0) for n in range(4)]
    sweep = plan(tmp_path / "many", cells)
    for n, token in enumerate("ab"):
        write_claim(sweep, n, elsewhere(0, token=token), touched=now - 5)
    assert time_left(state_of(sweep)).wall == 200


def test_a_cell_that_takes_too_long_takes_none_of_the_others_time(tmp_path: Path) -> None:
    sweep = plan(tmp_path, [line(0, "A"), line(1, "B")])
    write_claim(sweep, 0, replace(here(), began=began_ago(HOUR)))
    left = time_left(state_of(sweep))
    assert (left.work, left.wall) == (100, 100)


@pytest.mark.parametrize(
    ("seconds", "is_running", "said"),
    [
        (2 * HOUR, False, "About 4 hours of work left for one process; no process is running."),
        (2 * HOUR, True, "About 4 hours left with 1 process running."),
        (None, False, "The time left is unknown; no process is running."),
        (None, True, "The time left is unknown."),
    ],
)
def test_the_time_in_words(
    tmp_path: Path, seconds: float | None, is_running: bool, said: str
) -> None:
    sweep = plan(tmp_path, [line(n, f"T{n}", seconds=seconds) for n in range(3)])
    write_result(sweep, 2)
    if is_running:
        write_claim(sweep, 0, elsewhere(0), touched=time.time() - 5)
    text = " ".join(shown(state_of(sweep), width=200).split())
    planned = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).astimezone()
    assert text.startswith(f"demo-01234567, planned {planned:%Y-%m-%d %H:%M}: 1 done, ")
    assert f" of 3. {said}" in text


def test_unknown_costs_are_at_least(tmp_path: Path) -> None:
    sweep = plan(tmp_path, [line(0, "A", seconds=HOUR * 2), line(1, "B", seconds=None)])
    text = shown(state_of(sweep), width=200)
    assert "At least 2 hours of work left for one process; no process is running." in text


def test_all_done(tmp_path: Path) -> None:
    sweep = one(tmp_path)
    write_result(sweep, 0)
    text = shown(state_of(sweep), width=200)
    assert "1 done, 0 running, 0 failed, 0 missing of 1. All cells are done." in text
    # No table of one row, and no empty list.
    assert len(text.strip().splitlines()) == 1


def table_rows(text: str, head: str) -> list[list[str]]:
    """Return the rows of the table, by words, up to the first empty line."""
    lines = [one.split() for one in text.splitlines()]
    start = next(n for n, words in enumerate(lines) if words[:1] == [head])
    return lines[start + 2 : lines.index([], start) if [] in lines[start:] else None]


def test_elements_that_are_alike_share_a_row(tmp_path: Path) -> None:
    sweep = elements(tmp_path, 14, cells=2)
    for index in [*range(16), 18]:
        write_result(sweep, index)
    write_claim(sweep, 19, elsewhere(0), touched=time.time() - 5)
    write_failure(sweep, 24, str(OOM))
    write_failure(sweep, 25, str(OOM))
    assert table_rows(shown(state_of(sweep)), "element") == [
        ["0-7", "16", "16", "all", "done"],
        ["8,10-11,13", "8", "8", "13", "minutes"],
        ["9", "2", "1", "1", "1.7", "minutes"],
        ["12", "2", "2", "3.3", "minutes"],
    ]


def test_one_element_is_shown_by_models(tmp_path: Path) -> None:
    lines = [
        line(0, "A", model="org/a", seconds=3 * HOUR),
        line(1, "B", model="org/a", seconds=3 * HOUR),
        line(2, "C", model="org/b", seconds=None),
        line(3, "D", model="org/c"),
    ]
    sweep = plan(tmp_path, lines)
    write_result(sweep, 0)
    write_result(sweep, 3)
    assert table_rows(shown(state_of(sweep)), "model") == [
        ["org/a", "2", "1", "1", "3", "hours"],
        ["org/b", "1", "1", "≥", "?"],
        ["org/c", "1", "1", "all", "done"],
    ]


def test_long_lists_are_cut(tmp_path: Path) -> None:
    sweep = elements(tmp_path, 57)
    for index in range(57):
        write_failure(sweep, index, str(OOM))
    text = shown(state_of(sweep))
    assert text.count("OutOfMemoryError") == 20
    lines = [one.strip() for one in text.splitlines()]
    # Of the table and of the list.
    assert lines.count("and 37 more") == 2
    assert shown(state_of(sweep), most=6).count("OutOfMemoryError") == 6


def test_flags_become_keys() -> None:
    given = ["--failed", "results_dir=x", "--watch", "failed=true", "--help"]
    expected = ["failed=true", "results_dir=x", "watch=true", "failed=true", "--help"]
    assert status.prepare(given) == expected

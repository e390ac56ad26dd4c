"""A sweep in several processes that are killed: every cell once, nothing left over, same table."""

import json
import os
import random
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import chaos_program
import pytest
from commands import Commands
from observers import Unwarned

from lcbench.api.evaluate import carry_out

pytestmark = pytest.mark.slow
PROGRAM = Path(__file__).parents[1] / "support" / "chaos_program.py"
CELLS = 48
# A third of the cells, for the test that is not exhaustive.
FEW = "[1.0,0.7]"


def cells_of(taus: str) -> int:
    return len(chaos_program.DATASETS) * len(json.loads(taus))


def run(
    commands: Commands, work: Path, model: Path, *options: str
) -> tuple[dict[str, Any], Counter[tuple[str, str]]]:
    """Run the program; return what it saw, and how often each cell was begun and done."""
    words = [str(work), str(model), *options]
    done = commands.run(words, work, os.environ, program=PROGRAM)
    said = "".join(path.read_text()[-2000:] for path in work.glob("journal.*.log"))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{said}"
    journal = [line.split("\t") for line in (work / "journal").read_text().splitlines()]
    return json.loads(done.stdout), Counter((what, cell) for what, cell, _ in journal)


def report(commands: Commands, work: Path) -> str:
    """The table of a work folder's results."""
    done = commands.run(["report", f"results_dir={work / 'runs'}"], work, os.environ)
    assert (done.returncode, done.stderr) == (0, "")
    folder = work / "runs" / "report"
    table = (folder / "table1.md").read_text() + (folder / "tables.md").read_text()
    assert "STSBenchmark" in table
    return table


def scores(work: Path) -> dict[str, Any]:
    """The scores of every cell, by file."""
    runs = work / "runs"
    return {
        str(path.relative_to(runs)): json.loads(path.read_text())["scores"]
        for path in runs.glob("*/results/**/*.json")
        if path.name != "model_meta.json"
    }


def leftovers(work: Path) -> list[str]:
    """Whatever is not a whole file that belongs there."""
    kinds = (".json", ".provenance.jsonl", ".items.parquet", ".log", "manifest.jsonl")
    runs = work / "runs"
    found = [path for path in runs.rglob("*") if path.is_symlink() or not path.is_dir()]
    return [
        str(path.relative_to(runs))
        for path in found
        if "report" not in path.relative_to(runs).parts
        and (path.name.startswith(".") or not path.name.endswith(kinds))
    ]


Whole = Callable[[str], Path]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, make_model: Callable[[str], Path]) -> Whole:
    """Return a maker of the sweep as one process runs it, by its temperatures."""

    @cache
    def make(taus: str) -> Path:
        work = tmp_path_factory.mktemp("whole")
        chaos_program.make_data(work / "mirror")
        settings = chaos_program.settings_of(work, make_model("bert"), "runs", taus)
        outcome = carry_out(settings, Unwarned())
        cells = cells_of(taus)
        assert (len(outcome.cells), outcome.found, outcome.failed) == (cells, 0, {})
        assert len(chaos_program.seen_results(work / "runs")) == cells
        return work

    return make


def test_the_data_is_that_of_forty_cells_and_more() -> None:
    assert cells_of(chaos_program.TAUS) == CELLS
    for taus in (FEW, chaos_program.TAUS):
        assert 1.0 in json.loads(taus)


@pytest.mark.parametrize(
    ("apart", "kills", "taus"),
    [
        (False, 5, FEW),
        pytest.param(False, 50, chaos_program.TAUS, marks=pytest.mark.exhaustive),
        pytest.param(True, 12, chaos_program.TAUS, marks=pytest.mark.exhaustive),
    ],
)
def test_killed_again_and_again(
    commands: Commands,
    tmp_path: Path,
    make_model: Callable[[str], Path],
    whole: Whole,
    apart: bool,
    kills: int,
    taus: str,
    record_property: Callable[[str, object], None],
) -> None:
    # To have the same again: LCBENCH_CHAOS_SEED, as far as the machine's own timing allows.
    seed = int(os.environ.get("LCBENCH_CHAOS_SEED", random.SystemRandom().randrange(10**6)))
    record_property("seed", seed)
    options = [f"--seed={seed}", f"--kills={kills}", f"--taus={taus}"]
    options += ["--apart"] if apart else []
    seen, journal = run(commands, tmp_path, make_model("bert"), *options)
    assert seen["kills"] >= kills
    assert seen["statuses"] == {"0": 4}
    assert seen["results"] == seen["cells"] == cells_of(taus)
    assert seen["rewritten"] == []
    # One that was killed between its result and this line is missing; none is there twice.
    assert not [cell for (what, cell), times in journal.items() if what == "done" and times > 1]
    assert not [cell for what, cell in journal if what not in ("begins", "done")]
    assert leftovers(tmp_path) == []
    assert scores(tmp_path) == scores(whole(taus))
    assert report(commands, tmp_path) == report(commands, whole(taus))


@pytest.mark.exhaustive
def test_sixteen_workers_do_each_cell_once(
    commands: Commands, tmp_path: Path, make_model: Callable[[str], Path], whole: Whole
) -> None:
    words = ("--workers=16", "--kills=0")
    seen, journal = run(commands, tmp_path, make_model("bert"), *words)
    assert seen["statuses"] == {"0": 16}
    assert seen["results"] == CELLS
    assert set(journal.values()) == {1}
    assert len(journal) == 2 * CELLS
    assert leftovers(tmp_path) == []
    assert scores(tmp_path) == scores(whole(chaos_program.TAUS))

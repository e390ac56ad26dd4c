"""Section 9: two runs on one device and one folder of results."""

from __future__ import annotations

from gpu_sections import runs
from gpu_sections.check import Check

_TAUS = ("1.0", "0.9", "0.8", "0.7")
_QUICK_TAUS = ("1.0", "0.8")
_DONE = "  done  "


def run(check: Check) -> None:
    """Let two runs share the cells of a sweep: each cell is run once, and scores as alone."""
    tasks, taus = runs.tasks_of(check), _QUICK_TAUS if check.quick else _TAUS
    results = check.folder / "results"
    overrides = [
        *("model=minilm", f"tasks=[{','.join(tasks.names)}]", f"tau=[{','.join(taus)}]"),
        *(*tasks.overrides, runs.engine_override(check)),
    ]
    if check.quick:
        overrides.append("engine.scoring=0")
    names = ("first", "second")
    started = {name: runs.start_run(check, name, results, overrides) for name in names}
    ended = [runs.finish(check, name, one) for name, one in started.items()]
    cells = len(tasks.names) * len(taus)
    done = {name: one.output.count(_DONE) for name, one in started.items()}
    for name, count in done.items():
        check.measure(f"cells run by the {name}", count)
    check.require(sum(done.values()) == cells, f"{sum(done.values())} cells run for {cells}")
    found = runs.scores(results)
    check.require(len(found) == cells, f"{len(found)} cells instead of {cells}")
    alone = check.out / "minilm" / "device"
    if all(ended) and alone.is_dir():
        runs.compare_scores(check, "main scores, together and alone", found, runs.scores(alone))

"""Section 5: `sweep=demo` on the device, how busy that was, and two of its tasks on the CPU."""

from __future__ import annotations

import statistics
from contextlib import nullcontext
from pathlib import Path

from gpu_sections import runs
from gpu_sections.check import NEEDS_CUDA, Check
from gpu_sections.sampler import Sampler, read_gpu

# The cells of the sweep: eight tasks at four temperatures.
_CELLS = 32
_ON_THE_CPU = ("DocstringLibraryClassification", "DocstringReranking")
_QUICK = (
    *(f"tasks=[{','.join(_ON_THE_CPU)}]", "tau=[1.0,0.8]", "engine.scoring=0"),
    *runs.QUICK_DOCS,
)
_QUICK_CELLS = 4


def run(check: Check) -> None:
    """Run the sweep, say where its time went, and compare its baseline with the CPU's."""
    results = check.folder / "results"
    overrides = ["sweep=demo", runs.engine_override(check), *(_QUICK if check.quick else ())]
    sampler = Sampler(lambda: read_gpu(check.device))
    with sampler if check.cuda else nullcontext():
        ended = runs.finish(check, "demo", runs.start_run(check, "demo", results, overrides))
    _say_how_busy(check, sampler)
    if ended:
        _say_where_time_went(check, results)
        cells = _QUICK_CELLS if check.quick else _CELLS
        found = runs.scores(results)
        check.measure("cells", len(found))
        check.require(len(found) == cells, f"{len(found)} cells instead of {cells}")
        if check.has_time("the CPU's scores", 5.0) and _run_reference(check):
            name = "main scores at τ = 1, device and CPU"
            expected = runs.scores(check.folder / "cpu")
            runs.compare_scores(check, name, found, expected)


def _run_reference(check: Check) -> bool:
    """Run two of the sweep's tasks at τ = 1 on the CPU; return whether that ended well."""
    sizes = runs.QUICK_DOCS if check.quick else ()
    tasks = f"tasks=[{','.join(_ON_THE_CPU)}]"
    overrides = ["sweep=demo", "tau=1.0", tasks, "engine.device=cpu", "engine.scoring=0", *sizes]
    return runs.finish(check, "cpu", runs.start_run(check, "cpu", check.folder / "cpu", overrides))


def _say_how_busy(check: Check, sampler: Sampler) -> None:
    if not check.cuda:
        check.measure("how busy the device was", NEEDS_CUDA)
        return
    if sampler.error is not None:
        check.measure("samples", f"{type(sampler.error).__name__}: {sampler.error}")
    if sampler.samples:
        check.measure("samples", len(sampler.samples))
        check.measure("busy, mean of the whole run, %", _mean(sampler, "busy"))
        check.measure("busy, mean while it was used, %", sampler.busy_while_used)
        check.measure("memory, most, GiB", max(one.memory for one in sampler.samples))
        check.measure("power, mean, W", _mean(sampler, "power"))


def _mean(sampler: Sampler, name: str) -> float:
    return statistics.fmean(getattr(one, name) for one in sampler.samples)


def _say_where_time_went(check: Check, results: Path) -> None:
    found = list(runs.records(results).values())
    for name in ("encode", "wait", "load", "score", "items"):
        total = sum(one[f"seconds_{name}"] for one in found)
        check.measure(f"seconds of all cells, {name}", total)
    tokens = sum(one["encoded_tokens"] for one in found)
    seconds = sum(one["seconds_encode"] for one in found)
    check.measure("tokens encoded", tokens)
    if seconds:
        check.measure("tokens/s while encoding", tokens / seconds)

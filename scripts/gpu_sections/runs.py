"""Runs of the command `python -m lcbench` within a section, and their scores.

Only the sections that score import this; it needs Hydra and pandas by way of the benches' helpers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench_support as support
from bench_support import MirrorCut

from gpu_sections.check import Check, Command, environment

# Main scores on two devices agree to this, in [0, 1].
SCORE_TOLERANCE = 1e-4
_PUBLIC = ("STSBenchmark", "STS13", "Banking77Classification")
# In their place where there is no mirror.
_DOCS = ("DocstringReranking", "DocstringModuleClusteringS2S", "DocstringLibraryClassification")
_QUICK_CUT = MirrorCut(labels=3, pairs=20, documents=3)
QUICK_DOCS = (
    "docs.documents=20",
    "docs.documents_per_module=8",
    "docs.long_documents=4",
    "docs.clustering_sets=2",
    "docs.synthetic_documents=2",
)


@dataclass(frozen=True)
class Tasks:
    """Tasks to score, and the overrides that say where their data is.

    Attributes:
        names: of mteb's, or of the docs suite.
        overrides: of lcbench's command line.
    """

    names: tuple[str, ...]
    overrides: tuple[str, ...]


def tasks_of(check: Check) -> Tasks:
    """Return three tasks: public ones where the mirror has them, else of the docs suite."""
    here = support.in_mirror(check.mirror)
    if check.mirror is None or not set(_PUBLIC) <= set(here):
        return Tasks(_DOCS, QUICK_DOCS if check.quick else ())
    if not check.quick:
        return Tasks(_PUBLIC, (f"mirror={check.mirror}",))
    # The sections share it.
    folder = check.out / "mirror"
    if not folder.exists():
        support.cut_mirror(check.mirror, folder, _QUICK_CUT)
    return Tasks(_PUBLIC, (f"mirror={folder}", "unverified_data=true"))


def start_run(check: Check, name: str, results: Path, overrides: Sequence[str]) -> Command:
    """Start a run in the background.

    Args:
        check: the section.
        name: of its log, and of its caches.
        results: where its results go.
        overrides: of the command line.
    """
    arguments = ["-m", "lcbench", "offline=true", f"results_dir={results}"]
    if not any(one.startswith("store") for one in overrides):
        arguments.append(f"store.folder={check.folder / f'{name}-store'}")
    # `datasets` tells folders of one name and layout apart by neither place nor content: what it
    # has prepared of another mirror it would take for this one.
    caches = environment(HF_DATASETS_CACHE=str(check.folder / f"{name}-datasets"))
    return Command([*arguments, *overrides], check.folder / f"{name}.log", caches)


def finish(check: Check, name: str, run: Command) -> bool:
    """Wait for a run, and return whether it ended well."""
    # What has been measured is to be kept.
    status = run.wait(check.seconds_left)
    how = "did not end in time" if status is None else f"ended with {status}"
    check.require(status == 0, f"the run {name} {how}: {run.last_line}")
    return status == 0


def engine_override(check: Check) -> str:
    """Return the override that puts a run on the check's device."""
    return f"engine.device={check.device}"


def records(results: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the provenance of each cell below a folder of results, by task and temperature."""
    found = {}
    for path in sorted(results.glob("*/results/**/*.provenance.jsonl")):
        record = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
        found[path.name.removesuffix(".provenance.jsonl"), str(record["policy"])] = record
    return found


def scores(results: Path) -> dict[tuple[str, str], float]:
    """Return the mean main score of each cell below a folder, by task and temperature."""
    found = {}
    for path in sorted(results.glob("*/results/**/*.provenance.jsonl")):
        task = path.name.removesuffix(".provenance.jsonl")
        record = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
        result = json.loads(path.with_name(f"{task}.json").read_text(encoding="utf-8"))
        values = [row["main_score"] for rows in result["scores"].values() for row in rows]
        found[task, str(record["policy"])] = sum(values) / len(values)
    return found


def compare_scores(
    check: Check,
    name: str,
    got: Mapping[tuple[str, str], float],
    expected: Mapping[tuple[str, str], float],
) -> None:
    """Require that the cells that two runs have in common score alike, and that there are such."""
    common = sorted(set(got) & set(expected))
    for task, tau in common:
        pair = got[task, tau], expected[task, tau]
        row = [task, tau, *(f"{one:.6f}" for one in pair), f"{abs(pair[0] - pair[1]):.1e}"]
        check.add_row(name, ["task", "τ", "main score", "expected", "difference"], row)
        check.require(
            abs(pair[0] - pair[1]) <= SCORE_TOLERANCE,
            f"{name}: {task} at τ = {tau}: {pair[0]:.6f} instead of {pair[1]:.6f}",
        )
    check.require(bool(common), f"{name}: there are no scores to compare")

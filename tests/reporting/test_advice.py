"""From the items of cells to a recommendation: the right repair, and what tasks can tell."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from recommended import recommended
from report_cells import item_rows, write_cell

from lcbench.reporting.advice_text import sentences
from lcbench.reporting.score_table import AVERAGE
from lcbench.results.folder import Results
from lcbench.tempscale.policy import BASELINE, Constant

# Two columns of several tasks, and eight of one.
SEVERAL = ("SciFact", "NFCorpus", "STS12", "STS13", "STS14", "BIOSSES", "STS15", "STS16")
EACH_ALONE = (
    *("ImdbClassification", "STS12", "SciFact", "SciDocsRR", "LEMBQMSumRetrieval"),
    *("TwentyNewsgroupsClustering", "SummEval", "SprintDuplicateQuestions"),
)
TAUS = (0.9, 0.8, 0.7)


def write_world(
    folder: Path, tasks: Sequence[str], gains: Mapping[float, float], *, spread: float = 0.0
) -> Results:
    """Write cells in which each repair adds a gain to every item, with noise.

    Args:
        folder: of the results.
        tasks: names of mteb's.
        gains: mean gain of each τ.
        spread: standard deviation of a gain from task to task.
    """
    random = np.random.default_rng(3)
    results = Results(folder)
    for task in tasks:
        base = random.uniform(0.3, 0.6, 150)
        for tau in (None, *gains):
            scores = base
            if tau is not None:
                gain = gains[tau] + spread * random.normal()
                scores = base + gain + random.normal(0, 0.05, len(base))
            rounded = [round(float(one), 6) for one in scores]
            write_cell(
                results,
                task,
                float(np.mean(rounded)),
                item_rows(rounded),
                policy=BASELINE if tau is None else Constant(tau),
            )
    return results


def test_the_repair_that_helps_is_recommended(tmp_path: Path) -> None:
    tasks = ("SciFact", "NFCorpus", "ImdbClassification", "Banking77Classification")
    results = write_world(tmp_path / "runs", tasks, {0.9: 0.0, 0.8: 0.03, 0.7: -0.02})
    found, block = recommended(results, tmp_path)
    assert (found.policy, found.across) == ("0.8", "texts")
    assert found.advice is not None
    assert found.advice.units == 600
    # A gain of 3 points on a baseline of 45, 6.7 %.
    assert 5 < found.advice.expected_low < found.advice.expected < found.advice.expected_high < 9
    for place, policy in enumerate(found.policies):
        reported = block.improvements[policy][AVERAGE]
        assert found.advice.gains[place] == pytest.approx(reported, abs=2e-3)
    first, *_ = sentences(found)
    assert first.startswith("bge-base-en-v1.5: ship τ = 0.8. To expect on other texts like these: ")
    assert "counting the choice among 3 τ" in first


def test_no_interval_goes_below_what_a_score_can_lose(tmp_path: Path) -> None:
    results = Results(tmp_path / "runs")
    random = np.random.default_rng(0)
    base = np.where(np.arange(40) < 6, 1.0, 0.0)
    for tau in (None, *TAUS):
        scores = base if tau is None else random.permutation(base)
        policy = BASELINE if tau is None else Constant(tau)
        rows = item_rows(list(scores), relevant=[[{"id": "d", "grade": 1}]] * 40)
        write_cell(results, "SciFact", float(scores.mean()), rows, policy=policy)
    found, _ = recommended(results, tmp_path)
    assert found.advice is not None
    assert found.advice.expected_low == -100
    assert found.advice.low.min() == -100
    assert found.advice.expected_high > 0


def test_one_repair_is_no_choice(tmp_path: Path) -> None:
    results = write_world(tmp_path / "runs", ("SciFact", "NFCorpus"), {0.8: 0.03})
    found, _ = recommended(results, tmp_path)
    assert found.policy == "0.8"
    assert "choice among" not in sentences(found)[0]


def test_tasks_without_items_are_left_out(tmp_path: Path) -> None:
    results = write_world(tmp_path / "runs", ("SciFact", "NFCorpus"), {0.9: 0.0, 0.8: 0.03})
    alone, _ = recommended(results, tmp_path)
    for policy, score in ((BASELINE, 0.9), (Constant(0.9), 0.8), (Constant(0.8), 0.1)):
        write_cell(results, "TwentyNewsgroupsClustering.v2", score, policy=policy)
    found, _ = recommended(results, tmp_path)
    assert found.left_out == ("TwentyNewsgroupsClustering.v2",)
    assert (found.policy, found.tasks) == ("0.8", ("NFCorpus", "SciFact"))
    assert found.advice is not None
    assert alone.advice is not None
    assert found.advice.expected == pytest.approx(alone.advice.expected)
    said = " Avg is without TwentyNewsgroupsClustering.v2, whose items are not known."
    assert sentences(found)[-1] == sentences(alone)[-1] + said
    for policy, score in ((BASELINE, 0.9), (Constant(0.9), 0.8)):
        write_cell(
            Results(tmp_path / "other"), "TwentyNewsgroupsClustering.v2", score, policy=policy
        )
    nothing, _ = recommended(Results(tmp_path / "other"), tmp_path)
    assert nothing.why == "the items of TwentyNewsgroupsClustering.v2 are not known"


def test_by_default_tasks_are_the_units_of_many_tasks(tmp_path: Path) -> None:
    results = write_world(tmp_path / "runs", SEVERAL, dict.fromkeys(TAUS, 0.0), spread=0.01)
    found, _ = recommended(results, tmp_path)
    assert found.across == "tasks"
    assert found.advice is not None
    assert found.advice.units == 8
    assert found.policy is None
    assert found.advice.expected_low < 0 < found.advice.expected_high


def test_a_task_alone_in_its_column_says_nothing_of_other_tasks(tmp_path: Path) -> None:
    results = write_world(tmp_path / "runs", EACH_ALONE, dict.fromkeys(TAUS, 0.0), spread=0.01)
    assert recommended(results, tmp_path)[0].across == "texts"
    found, _ = recommended(results, tmp_path, "tasks")
    assert found.advice is None
    assert found.why is not None
    assert found.why.startswith("how gains vary from task to task is unknown where a column has")
    assert all(task in found.why for task in EACH_ALONE)
    assert found.why.endswith("Take across=texts")

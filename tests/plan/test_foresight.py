"""`lcbench.plan.foresight`: what a sweep can see, told before it is run."""

import csv
import math
from functools import partial
from pathlib import Path

import pytest

from lcbench.plan import foresight
from lcbench.plan.foresight import Foresight, foresee
from lcbench.settings.sources import shipped_sources
from lcbench.tasks.registry import TaskChoice
from lcbench.tasks.source import Part
from lcbench.tasks.suites import OUTSIDE_AVERAGE, column_of, resolve_all, shipped_suites

COLUMN_OF = partial(column_of, suites=shipped_suites())
RESULTS = Path(__file__).parents[2] / "results"


def parts_of(*tasks: str, subsets: tuple[str, ...] | None = None) -> dict[str, Part]:
    return resolve_all([TaskChoice(task) for task in tasks], "test", subsets, shipped_sources())


def foreseen(*tasks: str, tried: int = 1) -> Foresight:
    found = foresee(parts_of(*tasks), COLUMN_OF, tried)
    assert found is not None
    return found


def test_by_hand() -> None:
    """1,379 pairs at 3 % each: an error of 0.081 %, of which 2.80 are detectable."""
    one = foreseen("STSBenchmark")
    assert one.smallest == pytest.approx((1.95996 + 0.84162) * 3 / math.sqrt(1379), rel=1e-3)
    assert one.chance == pytest.approx(1.0, abs=1e-3)
    # Queries about one document are no more than documents: 197 meetings, not 1,527 queries.
    meetings = foreseen("LEMBQMSumRetrieval")
    assert meetings.smallest == pytest.approx(2.80158 * 15 / math.sqrt(197), rel=1e-3)


def test_columns_are_averaged_and_the_choice_costs() -> None:
    both = foreseen("STSBenchmark", "LEMBQMSumRetrieval")
    error = math.hypot(3 / math.sqrt(1379), 15 / math.sqrt(197)) / 2
    assert both.smallest == pytest.approx(2.80158 * error, rel=1e-3)
    six = foreseen("STSBenchmark", "LEMBQMSumRetrieval", tried=6)
    assert six.smallest > 1.2 * both.smallest
    assert six.chance < both.chance
    assert "accounting for the choice among 6 τ" in six.sentence()
    assert "choice" not in both.sentence()


def test_what_is_unknown_is_named() -> None:
    some = foreseen("STSBenchmark", "SummEval")
    assert some.unknown == ("SummEval",)
    assert "without noise for SummEval" in some.sentence()
    assert foresee(parts_of("SummEval"), COLUMN_OF, 1) is None
    # Nothing is compared.
    assert foresee(parts_of("STSBenchmark"), COLUMN_OF, 0) is None


def test_needle_and_passkey_are_no_part_of_avg() -> None:
    parts = parts_of("DocstringRetrieval", "DocstringNeedleRetrieval")
    at = {name: part.at(512) for name, part in parts.items()}
    assert foresee(at, COLUMN_OF, 1) == foreseen("DocstringRetrieval")


@pytest.mark.parametrize(
    ("sweep", "window", "kinds"),
    [
        ("minilm/docs", 512, {"Retrieval", "Reranking", "Classification", "Clustering"}),
        ("minilm/mirror", 256, {"Retrieval", "Classification", "STS"}),
    ],
)
def test_the_noise_is_that_of_the_recorded_cells(sweep: str, window: int, kinds: set[str]) -> None:
    """Errors at τ = 0.9, as the widths of intervals say them: tasks of a type differ."""
    with (RESULTS / sweep / "tasks.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["task"]: row for row in csv.DictReader(file) if row["policy"] == "0.9"}
    seen = set()
    # The sweep over the mirror was restricted to English.
    for task, part in parts_of(*rows, subsets=("en",) if "mirror" in sweep else None).items():
        kind, sized = part.source.kind(task), part.at(window)
        if COLUMN_OF(task, kind) in OUTSIDE_AVERAGE:
            continue
        error = (float(rows[task]["high"]) - float(rows[task]["low"])) / 2 / 1.96
        units = foresight._units(kind, sized.source.texts(sized))
        assert units is not None
        assert 1 / 2.5 < error * math.sqrt(units) / foresight.NOISE[kind] < 2.5
        seen.add(kind)
    assert seen == kinds


@pytest.mark.parametrize(
    ("task", "subsets", "kind", "units"),
    [
        # Translations of the same texts are one sample, however many languages are asked for.
        ("MassiveIntentClassification", None, "Classification", 2974),
        ("MassiveIntentClassification", ("en", "de"), "Classification", 2974),
        ("MassiveIntentClassification", ("en",), "Classification", 2974),
        ("STS22", ("en",), "STS", 197),
    ],
)
def test_units_are_those_of_the_subsets_that_are_asked_for(
    task: str, subsets: tuple[str, ...] | None, kind: str, units: int
) -> None:
    found = foresee(parts_of(task, subsets=subsets), COLUMN_OF, 1)
    assert found is not None
    wanted = 2.80158 * foresight.NOISE[kind] / math.sqrt(units)
    assert found.smallest == pytest.approx(wanted, rel=1e-3)


def test_subsets_of_unequal_sizes_count_by_their_harmonic_mean() -> None:
    part = parts_of("STS22", subsets=("en", "de"))["STS22"]
    sizes = [parts_of("STS22", subsets=(name,))["STS22"] for name in (part.subsets or ())]
    counts = [one.texts()[0].count for one in sizes]
    error = 3 * math.sqrt(sum(1 / count for count in counts)) / len(counts)
    found = foresee({"STS22": part}, COLUMN_OF, 1)
    assert found is not None
    assert found.smallest == pytest.approx(2.80158 * error, rel=1e-2)
    assert len(counts) > 1

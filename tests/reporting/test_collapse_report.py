"""The report of collapse says in sentences and tables what was measured, and what could not be."""

from dataclasses import replace
from pathlib import Path

import pytest
from collapse_texts import made_figures, made_measurements

from lcbench.measures.crowding import Weighted
from lcbench.measures.estimates import Estimate
from lcbench.measures.files import Measurement
from lcbench.reporting.collapse import headlines_of, report
from lcbench.reporting.figures.collapse import by_length
from lcbench.reporting.tables.collapse import tables_of


@pytest.fixture(scope="module")
def made() -> list[Measurement]:
    return made_measurements()


def test_a_model_that_does_not_pool_by_the_mean_is_shown_as_such(made: list[Measurement]) -> None:
    one = made[0]
    assert one.collapse.crowding is not None
    weighted = Weighted(2.93, 0.29, Estimate(-0.06, -0.08, -0.04), Estimate(0.01, -0.01, 0.03))
    verdict = replace(one.collapse.crowding.verdict, weighted=weighted)
    crowding = replace(one.collapse.crowding, verdict=verdict)
    other = replace(one, collapse=replace(one.collapse, crowding=crowding))
    names = [by_length([some])[0].series[0].name for some in (one, other, made[-1])]
    most = "averaging of independent parts that count alike (the most)"
    # Of a matrix it is not known.
    assert names == ["averaging of independent parts", most, most]
    (said,) = (table.notes for table in tables_of([other]) if table.name == "collapse")
    assert (
        "τ = 1: k 2.9, explained 29 %, length itself at its lowest -0.060 (-0.080 to -0.040), at "
        "its highest +0.010 (-0.010 to +0.030)."
    ) in said[0]
    assert (
        "The weights explain 29 % of the embeddings' variance; allowing for the rest, length "
        "itself adds -0.060 (-0.080 to -0.040) at least and +0.010 (-0.010 to +0.030) at most."
    ) in headlines_of([other])[0]
    (plain,) = (table.notes for table in tables_of([one]) if table.name == "collapse")
    assert plain == ()


def test_nothing_of_an_older_report_is_left_beside_a_new_one(
    made: list[Measurement], tmp_path: Path
) -> None:
    figures = made_figures()
    first = report(made, tmp_path, figures)
    (tmp_path / "tables" / "mine.csv").write_text("not the report's")
    without = [one for one in made if not one.policy]
    second = report(without, tmp_path)
    assert {"tables/retrieval.csv", "figures/figure-1c.png"} <= set(first.files)
    assert set(second.files) < set(first.files)
    there = {
        path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()
    }
    assert there == {*second.files, "tables/mine.csv"}


def test_a_report_says_what_length_does_to_retrieval(made: list[Measurement]) -> None:
    lines = headlines_of(made)
    assert sum("of pairs, a longer one above a shorter" in line for line in lines) == 2
    tables = {table.name: table for table in tables_of(made)}
    found = made[0].collapse.retrieval
    assert found is not None
    assert tables["retrieval"].rows[0][3].value == found.shorter.value  # type: ignore[union-attr]
    assert len(tables["search"].rows) == 2 * (1 + len(found.bins))
    assert tables["search"].rows[0][4 + 1].value == found.overall.score.value
    assert [row[2].value for row in tables["moderation"].rows[:2]] == [
        part.answer for part in found.moderations
    ]
    # What the length cannot do where there is one only is said.
    alike = replace(found, bins=(), shorter=None, longer=None, difference=None)
    one = replace(made[0], collapse=replace(made[0].collapse, retrieval=alike))
    said = next(line for line in headlines_of([one]) if "retrieval" in line)
    assert "what the length of documents does to retrieval cannot be told" in said
    reason = replace(made[0].collapse, retrieval=None, without_retrieval="it has no queries")
    others = [replace(one, collapse=reason, model=name) for name in ("a/b", "a/c")]
    assert (
        headlines_of(others).count("120 texts: retrieval is not measured: it has no queries.") == 1
    )

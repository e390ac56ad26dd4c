"""The report of collapse says in sentences and tables what was measured, and what could not be."""

from dataclasses import replace

from collapse_texts import made_measurements

from lcbench.reporting.collapse import headlines_of
from lcbench.reporting.tables.collapse import tables_of


def test_a_report_says_what_length_does_to_retrieval() -> None:
    made = made_measurements()
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

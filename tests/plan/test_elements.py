"""A sweep's cells are divided among elements that cost about the same and share expensive steps."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from lcbench.plan.elements import divide, element_seconds, lines_of, seconds
from lcbench.plan.machine import Machine
from lcbench.plan.manifest import Line
from lcbench.plan.predict import CellCost, Prediction
from lcbench.settings.schema import LaunchSettings

TAUS = ("1", "0.9", "0.8", "0.7", "0.6", "0.5", "0.1")


def grid(models: int, costs: Iterable[float | None], taus: Iterable[str] = TAUS) -> list[Line]:
    """Lines in the order of a run: models, then temperatures, then tasks of these costs."""
    costs, taus = list(costs), list(taus)
    cells = [
        (f"org/model{model}", tau, f"T{task}", cost)
        for model in range(models)
        for tau in taus
        for task, cost in enumerate(costs)
    ]
    return [
        Line(index, 0, model, "r", tau, task, "p-1", f"p-1/results/{model}/{tau}", cost)
        for index, (model, tau, task, cost) in enumerate(cells)
    ]


def elements(lines: Iterable[Line]) -> list[list[Line]]:
    found: dict[int, list[Line]] = {}
    for line in lines:
        found.setdefault(line.element, []).append(line)
    assert sorted(found) == list(range(len(found)))
    return [found[number] for number in sorted(found)]


def launch(**given: object) -> LaunchSettings:
    return LaunchSettings("slurm", **{"elements": None, **given})  # type: ignore[arg-type]


def test_every_cell_is_in_one_element_and_nothing_else_changes() -> None:
    lines = grid(2, [100.0, 200.0, 50.0])
    divided = divide(lines, launch(elements=5))
    assert [replace(line, element=0) for line in divided] == lines
    assert len(elements(divided)) == 5


def test_the_longest_element_is_as_short_as_can_be() -> None:
    costs = [7.0, 300.0, 40.0, 90.0, 1000.0, 3.0, 800.0, 120.0]
    for count in (2, 5, 11, 20):
        found = elements(divide(grid(3, costs), launch(elements=count)))
        assert len(found) == count
        longest = max(map(element_seconds, found))
        # No division can do better than the mean, or than its longest group of cells.
        mean = 3 * 7 * sum(costs) / count
        assert longest <= mean + 7 * max(costs) / 2 + 25 + 1e-6
        assert longest >= mean


def test_never_more_elements_than_asked_for() -> None:
    """The costs that a machine had measured, whose sums in two orders differ in the last digit."""
    costs = [3.919, 0.147, 0.343, 0.331, 1.223, 0.401, 0.955, 1.253]
    for factor in range(1, 200):
        lines = grid(1, [round(factor * cost, 3) for cost in costs], TAUS[:4])
        assert len(elements(divide(lines, launch(elements=1)))) == 1
        assert len(elements(divide(lines, launch(elements=3)))) == 3


def test_a_model_and_a_dataset_are_shared_within_an_element() -> None:
    divided = divide(grid(4, [60.0] * 10), launch(elements=8))
    for element in elements(divided):
        assert len({line.model for line in element}) == 1
        tasks = {line.task for line in element}
        assert len(element) == 7 * len(tasks)


def test_one_task_that_is_longer_than_the_rest_is_split_by_temperature() -> None:
    found = elements(divide(grid(1, [1000.0, 1.0]), launch(elements=4)))
    assert len(found) == 4
    assert max(map(element_seconds, found)) <= 2000.0 + 25.0 + 7.0


def test_by_hours() -> None:
    lines = grid(2, [600.0, 1200.0, 1800.0])
    found = elements(divide(lines, launch(hours=2.0)))
    assert all(element_seconds(one) <= 7200.0 for one in found)
    # 2 × 7 × 3,600 s are 14 hours: seven elements at the least.
    assert 7 <= len(found) <= 10
    # At most so many, whatever the hours.
    assert len(elements(divide(lines, launch(hours=2.0, elements=3)))) == 3


def test_a_cell_longer_than_the_hours_has_an_element_of_its_own() -> None:
    found = elements(divide(grid(1, [9000.0, 10.0], taus=["1"]), launch(hours=1.0)))
    assert [[line.task for line in one] for one in found] == [["T0"], ["T1"]]


def test_more_elements_than_cells_and_costs_that_are_not_known() -> None:
    assert len(elements(divide(grid(1, [None, None], taus=["1"]), launch(elements=9)))) == 2
    one = elements(divide(grid(1, [None]), launch(elements=1)))
    assert element_seconds(one[0]) == 15.0 + 10.0 + 7 * 60.0


def test_ten_thousand_cells_are_divided_in_time() -> None:
    import time

    began = time.perf_counter()
    lines = grid(10, [float(1 + task % 97) for task in range(125)], taus=(*TAUS, "2"))
    found = elements(divide(lines, launch(elements=200)))
    took = time.perf_counter() - began
    assert (len(lines), len(found)) == (10_000, 200)
    # 50 seconds; they take one.
    assert took / len(lines) < 0.005


@pytest.mark.parametrize(
    ("kind", "cores", "processes", "expected"),
    [
        ("cpu", 2, 2, 10.0 + 6.0 / 2),
        ("cpu", 2, 0, 16.0),
        ("cuda", 8, 4, 10.0),
        ("cuda", 8, 0, 16.0),
    ],
)
def test_what_a_cell_adds(kind: str, cores: int, processes: int, expected: float) -> None:
    prediction = Prediction({}, Machine("m", kind, cores, "float32"), processes, 0.0, 1.0)
    assert seconds(CellCost(encode=10.0, load=2.0, score=4.0), prediction) == expected


def test_lines_of_no_cells() -> None:
    assert lines_of([], None) == []  # type: ignore[arg-type]

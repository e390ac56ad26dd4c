"""What a run is predicted to take, and the measured rates that it is predicted from."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from composed import composed

from lcbench.hub.layers import Layer
from lcbench.hub.models import Dimensions
from lcbench.plan import fresh as cost
from lcbench.plan import machine as plan_machine
from lcbench.plan import predict as plan_predict
from lcbench.plan import rates as plan_rates
from lcbench.plan.machine import Machine
from lcbench.plan.predict import (
    CellCost,
    ModelCells,
    Prediction,
    outcome_line,
    predict,
    prediction_line,
    work_seconds,
)
from lcbench.plan.rates import Rates, read_rates
from lcbench.plan.recorder import Recorder
from lcbench.repair.attend import CalibratedAttention
from lcbench.repair.chunks import Chunks
from lcbench.repair.extension import Extension
from lcbench.repair.repair import Repair
from lcbench.results.cell import Cell, Protocol
from lcbench.settings import read
from lcbench.settings.schema import Settings
from lcbench.settings.sources import shipped_sources
from lcbench.system import words as system_words
from lcbench.system.json_cache import JsonCache
from lcbench.tasks.mteb_tasks import MtebSource
from lcbench.tasks.registry import TaskChoice
from lcbench.tasks.source import CHARACTERS_PER_TOKEN, Part, Texts
from lcbench.tasks.suites import resolve
from lcbench.tempscale.policy import BASELINE, ByRole, Constant, ModelShape, Policy, parse

CPU = Machine("a processor", "cpu", 2, "float32")
GPU = Machine("a GPU", "cuda:1", 8, "float32")
# One layer, one wide, so that a token costs 24 + 4 · length operations.
SMALL = Dimensions(layers=1, hidden=1, window=100)
SHAPE = ModelShape(layers=1, window=100, position_bias=False)
PROTOCOL = Protocol("paper", "none", "float32", "test", None, None, None)
# Texts of so many characters are estimated at ten tokens, two of them special.
TEN = 8 * CHARACTERS_PER_TOKEN
FIRST, SECOND, SEARCH = "STSBenchmark", "STS13", "NFCorpus"
SIZES = {
    # Both read the same column; the second has 100 texts more of it.
    FIRST: (Texts("shared", 200, 200, round(200 * TEN)),),
    SECOND: (Texts("shared", 300, 300, round(300 * TEN)), Texts("own", 50, 50, round(50 * TEN))),
    SEARCH: (
        Texts("search/documents", 1000, 1000, round(1000 * TEN)),
        Texts("search/queries", 10, 10, round(10 * TEN), role="query"),
    ),
}
SIMILAR = "Retrieve semantically similar text."
QUESTION = "Given a question, retrieve relevant documents that best answer the question"
PARTS = {name: Part(name, None, ("test",), None, "test", MtebSource()) for name in SIZES}
# 64,000 operations a second: a hundred of these texts, 10 · (24 + 4 · 10) each.
MEASURED = {
    "encoding": {f"{CPU.key}|1": [2.0, 128_000.0]},
    "scoring": {
        f"{FIRST}|test|all||1": [2.0, 2.0, 4.0, 2.0],
        f"{SECOND}|test|all||1": [1.0, 0.0, 1.0, 0.0],
        f"{SEARCH}|test|all||1": [4.0, 4.0, 8.0, 8.0],
    },
    "starts": {CPU.key: [2.0, 10.0]},
}


@pytest.fixture(autouse=True)
def rates_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file of rates of the test's own, and tasks of made-up sizes."""
    path = tmp_path / "cache" / "rates.json"
    monkeypatch.setattr(plan_rates, "_FILE", JsonCache(path.name, path.parent))
    monkeypatch.setattr(MtebSource, "texts", lambda source, part: SIZES.get(part.name))
    return path


@pytest.fixture(scope="module")
def request_() -> Settings:
    return read.read({"minilm": composed("engine.device=cpu")})


def rates() -> Rates:
    return Rates(**{table: dict(entries) for table, entries in MEASURED.items()})


def grid(policies: Sequence[Policy], *tasks: str, model: str = "some/model") -> list[Cell]:
    return [
        Cell(model, "r", Repair(policy), task, PROTOCOL) for policy in policies for task in tasks
    ]


def predicted(
    request_: Settings,
    cells: Sequence[Cell],
    processes: int = 0,
    known: Dimensions | None = SMALL,
    measured: Rates | None = None,
) -> Prediction:
    return predict(
        PARTS,
        [ModelCells(known, cells)],
        machine=CPU,
        processes=processes,
        rates=measured or rates(),
    )


def test_texts_that_tasks_share_are_encoded_once(request_: Settings) -> None:
    cells = grid([BASELINE, Constant(0.9)], FIRST, SECOND)
    one = predicted(request_, cells)
    assert [one.cells[cell].texts for cell in cells] == [200, 150, 200, 150]
    assert [one.cells[cell].encode for cell in cells] == pytest.approx([2, 1.5, 2, 1.5], rel=1e-3)
    assert one.encode_seconds == pytest.approx(7, rel=1e-3)
    # In the other order the first cell has all of the shared ones.
    back = predicted(request_, cells[::-1])
    assert [back.cells[cell].texts for cell in cells] == [0, 350, 0, 350]
    # Two cells each: (2 + 4 + 2) / 2 s with loading, and 1 s.
    assert one.load_seconds == 2 * 1
    assert one.score_seconds == 2 * 3 + 2 * 1
    # 10 s in two runs before the first cell.
    assert one.wall_seconds == pytest.approx(5 + 7 + 2 + 8, rel=1e-3)
    assert not one.at_least


def test_a_role_grid_takes_seven_and_seven(request_: Settings) -> None:
    taus = [round(1 - i / 10, 1) for i in range(7)]
    pairs = [Constant(q) if q == d else ByRole(q, d) for q in taus for d in taus]
    cells = grid([policy.resolve(SHAPE) for policy in pairs], SEARCH)
    one = predicted(request_, cells)
    assert len(one.cells) == 49
    assert sum(cell.texts for cell in one.cells.values()) == 7 * 1000 + 7 * 10
    assert one.encode_seconds == pytest.approx(7 * 10.1, rel=1e-3)
    assert one.score_seconds == 49 * 4


def test_prompts_that_go_by_the_task_share_nothing(request_: Settings) -> None:
    prompted = replace(PROTOCOL, prompts="registry")
    cells = [replace(one, protocol=prompted) for one in grid([BASELINE], FIRST, SECOND)]
    one = predicted(request_, cells)
    assert sum(cell.texts for cell in one.cells.values()) == 200 + 300 + 50


@pytest.mark.parametrize(
    ("model", "task", "prompts"),
    [
        ("Qwen/Qwen3-Embedding-8B", FIRST, [f"Instruct: {SIMILAR}\nQuery:"]),
        ("Qwen/Qwen3-Embedding-8B", SEARCH, ["", f"Instruct: {QUESTION}\nQuery:"]),
        ("nomic-ai/nomic-embed-text-v1.5", FIRST, ["classification: "]),
        ("nomic-ai/nomic-embed-text-v1.5", SEARCH, ["search_document: ", "search_query: "]),
        ("some/model", FIRST, [""]),
    ],
)
def test_prompts_of_mtebs_registry_are_counted(
    request_: Settings, model: str, task: str, prompts: list[str]
) -> None:
    (cell,) = grid([BASELINE], task, model=model)
    tokens = []
    for source in ("none", "registry"):
        cells = [replace(cell, protocol=replace(PROTOCOL, prompts=source))]
        found = predicted(request_, cells, measured=rates()).cells[cells[0]]
        tokens.append([one.tokens / one.texts for one in found.fresh])
    added = [after - before for before, after in zip(*tokens, strict=True)]
    assert added == pytest.approx([len(one) / CHARACTERS_PER_TOKEN for one in prompts])


def test_texts_counted_with_prompts_say_nothing_of_those_without(request_: Settings) -> None:
    plain = grid([BASELINE], FIRST)
    prompted = [replace(one, protocol=replace(PROTOCOL, prompts="registry")) for one in plain]
    recorder = Recorder(predicted(request_, prompted, measured=rates()))
    recorder.record(prompted[0], record(200, 4000, 1.0))
    recorder.save()
    for cells, tokens in ((plain, 2000), (prompted, 4000)):
        found = predicted(request_, cells, measured=read_rates())
        assert found.cells[cells[0]].tokens == pytest.approx(tokens)


def test_models_share_nothing(request_: Settings) -> None:
    two = [ModelCells(SMALL, grid([BASELINE], FIRST, model=name)) for name in ("a/b", "c/d")]
    one = predict(PARTS, two, machine=CPU, processes=0, rates=rates())
    assert [cell.texts for cell in one.cells.values()] == [200, 200]


def test_two_processes_on_two_cores(request_: Settings) -> None:
    # A grid of 7 s of encoding, and 10 s of loading and scoring.
    cells = grid([BASELINE, Constant(0.9)], FIRST, SECOND)
    one = predicted(request_, cells, processes=2)
    assert one.wall_seconds == pytest.approx(5 + 7 + 10 / 2, rel=1e-3)
    slow = rates()
    slow.overlaps[f"{CPU.key}|2 processes"] = [100.0, 150.0]
    slow.overlaps[f"{CPU.key}|1 processes"] = [100.0, 900.0]
    one = predicted(request_, cells, processes=2, measured=slow)
    assert one.wall_seconds == pytest.approx(5 + 1.5 * (7 + 10 / 2), rel=1e-3)


@pytest.mark.parametrize(
    ("machine", "processes", "seconds"),
    [
        (CPU, 0, 4 + 40),
        (CPU, 1, 40),  # the chain of one process
        (CPU, 2, 30),  # the longest cell
        (GPU, 0, 4 + 40),
        (GPU, 4, 30),
    ],
)
def test_little_encoding_and_much_scoring(machine: Machine, processes: int, seconds: float) -> None:
    assert work_seconds([(1, 5), (2, 30), (1, 5)], machine, processes) == seconds


def test_much_encoding_hides_scoring_on_a_gpu_and_not_on_a_cpu() -> None:
    cells = [(50.0, 10.0), (50.0, 10.0)]
    assert work_seconds(cells, GPU, 2) == 100
    assert work_seconds(cells, CPU, 2) == 110
    assert work_seconds([], CPU, 2) == 0


def test_left_is_scaled_by_how_it_went(request_: Settings) -> None:
    cells = grid([BASELINE, Constant(0.9)], FIRST, SECOND)
    one = predicted(request_, cells)
    # 5 s of start-up; 2 s and 1.5 s of encoding; 4 s and 1 s of loading and scoring.
    assert one.left((), 0.0) == pytest.approx(22, rel=1e-3)
    assert one.left((), 0.0, since=20.0) == pytest.approx(2, abs=0.02)
    # The first cell was to have ended after 11 s, and 11 s were to be left.
    assert one.left(cells[:1], 11.0) == pytest.approx(11, rel=1e-3)
    assert one.left(cells[:1], 22.0) == pytest.approx(22, rel=1e-3)
    assert one.left(cells[:1], 22.0, since=4.0) == pytest.approx(18, rel=1e-3)
    assert one.left(cells[:1], 5.5, since=60.0) == 0
    assert one.left(cells, 22.0) == 0


def record(
    texts: int, tokens: int, encode: float, load: float = 0.5, score: float = 3.0
) -> dict[str, Any]:
    return {
        "encoded_texts": texts,
        "encoded_tokens": tokens,
        "seconds_encode": encode,
        "seconds_load": load,
        "seconds_score": score,
        "seconds_items": 0.25,
    }


def test_a_run_is_predicted_from_its_own_records(
    request_: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_predict, "matmul_rate", lambda device, dtype, hidden: 1e9)
    cells = grid([BASELINE, Constant(0.9)], FIRST, SECOND, SEARCH)
    records = [
        # The first two have half as many tokens again as reckoned, the third has other texts.
        record(200, 3000, 4.0, score=3.0),
        record(150, 2250, 2.5, score=1.0),
        record(1005, 9000, 21.0, load=2.0, score=7.0),
        record(200, 3000, 4.5, score=3.5),
        record(150, 2250, 2.6, score=1.0),
        record(1005, 9000, 22.0, load=2.1, score=7.5),
    ]
    before = predict(PARTS, [ModelCells(SMALL, cells)], machine=CPU, processes=2, rates=None)
    assert not any(one.rated or one.scored_before for one in before.cells.values())
    recorder = Recorder(before)
    for cell, one in zip(cells, records, strict=True):
        recorder.record(cell, one)
    total = {key: sum(one[key] for one in records) for key in records[0]}
    scoring = total["seconds_score"] + total["seconds_items"]
    modelled = total["seconds_encode"] + (scoring + total["seconds_load"]) / 2
    recorder.save(wall_seconds=6.0 + 1.2 * modelled, start_seconds=6.0)

    after = predict(PARTS, [ModelCells(SMALL, cells)], machine=CPU, processes=2, rates=None)
    assert after.encode_seconds == pytest.approx(total["seconds_encode"])
    assert after.score_seconds == pytest.approx(scoring)
    assert after.load_seconds == pytest.approx(total["seconds_load"])
    assert sum(one.tokens for one in after.cells.values()) == pytest.approx(total["encoded_tokens"])
    assert sum(one.texts for one in after.cells.values()) == pytest.approx(total["encoded_texts"])
    assert after.wall_seconds == pytest.approx(6.0 + 1.2 * modelled)
    assert all(one.rated and one.scored_before for one in after.cells.values())


def test_texts_that_a_store_had_do_not_make_tasks_seem_small(request_: Settings) -> None:
    cells = grid([BASELINE], FIRST)
    recorder = Recorder(predicted(request_, cells))
    recorder.record(cells[0], record(20, 300, 0.5))
    recorder.save()
    kept = read_rates()
    assert kept.texts == {}
    # 20 texts of 15 tokens.
    assert kept.encoding == {f"{CPU.key}|1": [0.5, 300 * (24 + 4 * 15)]}


def test_nothing_encoded_says_nothing_of_encoding(request_: Settings) -> None:
    cells = grid([BASELINE], FIRST)
    recorder = Recorder(predicted(request_, cells))
    recorder.record(cells[0], record(0, 0, 0.5))
    recorder.save()
    assert read_rates().encoding == {}
    assert read_rates().scoring == {f"{FIRST}|test|all||1": [1.0, 0.5, 3.0, 0.25]}


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"encoded_texts": None},
        record(200, 2000, math.nan),
        record(200, 2000, -1.0),
        record(200, 2000, 1.0) | {"seconds_score": "3"},
    ],
)
def test_a_record_that_lacks_something_is_left_out(
    request_: Settings, broken: Mapping[str, Any]
) -> None:
    cells = grid([BASELINE], FIRST)
    recorder = Recorder(predicted(request_, cells))
    recorder.record(cells[0], broken)
    recorder.record(replace(cells[0], task="never predicted"), record(1, 1, 1.0))
    recorder.save(wall_seconds=100.0, start_seconds=1.0)
    kept = read_rates()
    assert (kept.encoding, kept.scoring, kept.overlaps) == ({}, {}, {})


def test_an_interrupted_run_says_nothing_of_the_whole(request_: Settings) -> None:
    cells = grid([BASELINE], FIRST, SECOND)
    recorder = Recorder(predicted(request_, cells))
    recorder.record(cells[0], record(200, 2000, 40.0))
    recorder.save(wall_seconds=50.0, start_seconds=1.0)
    assert read_rates().overlaps == {}
    assert read_rates().starts == {CPU.key: [1.0, 1.0]}


def save(request_: Settings, seconds: float, score: float, texts: int = 200) -> None:
    """A run of one cell of 200 texts, whose tokens are as reckoned."""
    cells = grid([BASELINE], FIRST)
    recorder = Recorder(predicted(request_, cells))
    recorder.record(cells[0], record(texts, 10 * texts, seconds, score=score))
    recorder.save()


def test_more_work_counts_more_and_later_work_counts_more(request_: Settings) -> None:
    operations = 2000 * (24 + 4 * 10)
    save(request_, 60.0, 3.0)
    save(request_, 600.0, 5.0)
    # 600 s of work leave 1/e of what was before; a cell in eight e^(-1/8).
    kept, remains, of_cells = read_rates(), math.exp(-1), math.exp(-1 / 8)
    assert kept.encoding[f"{CPU.key}|1"] == pytest.approx(
        [600 + 60 * remains, operations * (1 + remains)], rel=1e-3
    )
    cells, load, score, items = kept.scoring[f"{FIRST}|test|all||1"]
    assert cells == pytest.approx(1 + of_cells)
    assert score / cells == pytest.approx((5 + 3 * of_cells) / (1 + of_cells))
    assert (load / cells, items / cells) == pytest.approx((0.5, 0.25))
    # A run of a moment changes next to nothing, however fast it was.
    save(request_, 0.06, 5.0, texts=2)
    seconds, done = read_rates().encoding[f"{CPU.key}|1"]
    assert done / seconds == pytest.approx(
        operations * (1 + remains) / (600 + 60 * remains), rel=0.01
    )


def test_rates_of_others_are_kept(request_: Settings, rates_file: Path) -> None:
    first, second = (Recorder(predicted(request_, grid([BASELINE], FIRST))) for _ in range(2))
    first.record(grid([BASELINE], FIRST)[0], record(200, 2000, 1.0))
    first.save()
    other = Recorder(predicted(request_, grid([BASELINE], SECOND)))
    other.record(grid([BASELINE], SECOND)[0], record(350, 3500, 1.0))
    other.save()
    second.save()
    assert set(read_rates().scoring) == {f"{FIRST}|test|all||1", f"{SECOND}|test|all||1"}
    assert list(rates_file.parent.iterdir()) == [rates_file]


def test_selfextend_is_estimated_with_three_products_of_queries_and_keys(
    request_: Settings,
) -> None:
    """And both with what they read, more than the window."""
    seconds = {}
    for method in ("ntk", "selfextend"):
        repair = Repair(extension=Extension(method, 1000))  # type: ignore[arg-type]
        cells = [Cell("some/model", "r", repair, FIRST, PROTOCOL)]
        found = predicted(request_, cells, measured=rates())
        assert [one.key for one in found.cells[cells[0]].fresh] == ["some/model|1000|shared"]
        seconds[method] = found.encode_seconds
    assert seconds["ntk"] == pytest.approx(2000 * (24 + 4 * 10) / 64_000)
    assert seconds["selfextend"] == pytest.approx(2000 * (24 + 8 * 10) / 64_000)


@pytest.mark.parametrize(
    ("pools_one", "causal", "layers"),
    [(False, False, 3), (True, False, 0), (None, True, 0), (None, False, 3), (False, True, 3)],
)
def test_calibrated_attention_is_counted_where_all_tokens_are_pooled(
    request_: Settings, pools_one: bool | None, causal: bool, layers: int
) -> None:
    """In the layers from the first on; of a single pooled token it takes no time."""
    layer = Layer(10, 2, 0, causal=causal, heads=2, whole=False)
    known = Dimensions(4, 1, 100, layer, pools_one=pools_one)
    seconds = []
    for part in (None, CalibratedAttention(5, 0.5, 1)):
        cells = [Cell("some/model", "r", Repair(attention=part), FIRST, PROTOCOL)]
        found = predicted(request_, cells, known=known, measured=rates())
        seconds.append(found.encode_seconds)
    added = 2000 * layers * cost._CALIBRATION * 2 * 10 / 64_000
    assert seconds[1] - seconds[0] == pytest.approx(added)
    half = CalibratedAttention(5, 0.5)
    assert cost._calibrated(Repair(attention=half), known) == (2 if layers else 0)


def test_the_nearest_width_stands_in_and_another_machine_does_not(
    request_: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_predict, "matmul_rate", lambda device, dtype, hidden: 1e6)
    cells = grid([BASELINE], FIRST)
    widths = rates()
    widths.encoding[f"{CPU.key}|1000"] = [1.0, 1.0]
    wider = replace(SMALL, hidden=3)
    tokens = predicted(request_, cells).cells[cells[0]].tokens
    operations = tokens * (24 * 9 + 4 * 10 * 3)
    one = predicted(request_, cells, known=wider, measured=widths)
    assert one.encode_seconds == pytest.approx(operations / 64_000, rel=1e-3)
    other = replace(CPU, cores=4)
    one = predict(PARTS, [ModelCells(wider, cells)], machine=other, processes=0, rates=widths)
    assert one.encode_seconds == pytest.approx(operations / (1e6 * 0.65), rel=1e-3)
    assert not one.at_least
    one = predict(PARTS, [ModelCells(wider, cells)], machine=GPU, processes=0, rates=widths)
    assert one.encode_seconds == pytest.approx(operations / 1e6, rel=1e-3)
    assert one.at_least


def test_what_is_not_known_makes_it_a_lower_bound(request_: Settings) -> None:
    cells = grid([BASELINE], FIRST)
    one = predicted(request_, cells, known=None)
    assert (one.encode_seconds, one.score_seconds, one.at_least) == (0, 3, True)
    parts = {"STS12": Part("STS12", None, ("test",), None, "test", MtebSource())}
    unsized = [ModelCells(SMALL, grid([BASELINE], "STS12"))]
    one = predict(parts, unsized, machine=CPU, processes=0, rates=rates())
    assert (one.encode_seconds, one.at_least) == (0, True)


def test_nothing_left_takes_no_time(request_: Settings) -> None:
    assert predicted(request_, []).wall_seconds == 0


@pytest.mark.parametrize(
    ("task", "seconds"),
    [
        ("Banking77Classification", 10 * (10_003 * 3e-6 + 77 * 7e-3)),
        ("EmotionClassification", 10 * (16_000 * 3e-6 + 6 * 7e-3)),
        # These two took 0.09 and 1.74 s with MiniLM on two cores.
        ("STSBenchmark", 2758 * 3.3e-5),
        ("LEMBQMSumRetrieval", 1724 * 3.3e-5 + 1527 * 1.1e-3 + 1527 * 197 * 2e-8),
        ("TwentyNewsgroupsClustering", 59_545 * 1.5e-4),
        ("MindSmallReranking", 2_367_791 * 3.3e-5 + 2_362_514 * 1.1e-3),
    ],
)
def test_scoring_that_was_never_measured(
    request_: Settings, monkeypatch: pytest.MonkeyPatch, task: str, seconds: float
) -> None:
    monkeypatch.undo()
    parts = {task: resolve(TaskChoice(task), "test", None, shipped_sources())}
    cells = [ModelCells(SMALL, grid([BASELINE], task))]
    one = predict(parts, cells, machine=CPU, processes=0, rates=rates_of_encoding())
    assert one.score_seconds == pytest.approx(seconds, rel=1e-3)


def rates_of_encoding() -> Rates:
    return Rates(encoding=dict(MEASURED["encoding"]))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "\x00\x01",
        '{"format": 2, "encoding": {"a|1": [1, 1]}}',
        '{"format": 1}',
        '{"format": 1, "encoding": []}',
        '{"format": 1, "encoding": {"a|1": [1, 1, 1], "b|1": [0, 1], "c|1": [1, -1]}}',
        '{"format": 1, "encoding": {"a|1": ["1", 1], "b|1": [true, 1], "c|1": 3, "d|1": [1, 0]}}',
        '{"format": 1, "encoding": {"a|1": [NaN, 1], "b|1": [Infinity, 1]}}',
        "[" * 100_000,
    ],
)
def test_a_file_that_is_none_of_ours_is_no_rate(
    request_: Settings, rates_file: Path, content: str
) -> None:
    rates_file.parent.mkdir()
    rates_file.write_text(content)
    assert read_rates() == Rates()
    save(request_, 60.0, 3.0)
    assert set(read_rates().encoding) == {f"{CPU.key}|1"}


def test_what_is_right_of_a_file_is_read(rates_file: Path) -> None:
    rates_file.parent.mkdir()
    content = {"format": 1, "encoding": {"a|1": [2, 3], "b|1": "x"}, "more": {"c": [1]}}
    rates_file.write_text(json.dumps(content))
    assert read_rates() == Rates(encoding={"a|1": [2.0, 3.0]})


def test_a_cache_that_cannot_be_written_stops_nothing(request_: Settings, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file in the folder's place")
    save(request_, 60.0, 3.0)
    assert read_rates() == Rates()


def test_the_oldest_entries_go(
    request_: Settings, rates_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_rates, "_MOST", 2)
    rates_file.parent.mkdir()
    entries = {key: [1.0, 0.0, 1.0, 0.0] for key in ("a|1", f"{FIRST}|test|all||1", "b|1")}
    rates_file.write_text(json.dumps({"format": 1, "scoring": entries}))
    save(request_, 60.0, 3.0)
    assert list(read_rates().scoring) == ["b|1", f"{FIRST}|test|all||1"]


def test_sentences(request_: Settings) -> None:
    cell = grid([BASELINE], FIRST)[0]
    cells = {cell: CellCost(encode=170.0, load=0.2, score=100.0)}
    one = Prediction(cells, CPU, processes=2, start=24.9, overlap=1.0)
    assert prediction_line(one) == (
        "Estimated time: about 4.1 minutes; encoding 2:50, scoring 1:40 in parallel "
        "(from earlier runs on this machine)"
    )
    assert outcome_line(one, 260.0) == "estimated 4:05, took 4:20"
    unknown = {cell: replace(cells[cell], load=61.0, rated=False, unknown=True)}
    one = Prediction(unknown, CPU, processes=0, start=0.0, overlap=1.0)
    assert prediction_line(one) == (
        "Estimated time: at least 5.5 minutes; encoding 2:50, scoring 1:40, loading data 1:01 "
        "(from a short measurement of this machine)"
    )
    partly = {cell: replace(cells[cell], scored_before=False)}
    assert prediction_line(replace(one, cells=partly)).endswith(
        "(from earlier runs on this machine, scoring partly from dataset sizes)"
    )


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0:00"), (59.6, "1:00"), (245, "4:05"), (3845, "1:04:05"), (3.6e6, "1,000 hours")],
)
def test_clocks(seconds: float, shown: str) -> None:
    assert system_words.clock(seconds) == shown


@pytest.mark.parametrize(
    ("hours", "words"),
    [
        (0.001, "a minute"),
        (1 / 60, "1 minute"),
        (0.25, "15 minutes"),
        (1.25, "75 minutes"),
        (1.5, "1.5 hours"),
        (7345.0, "7,300 hours"),
        (1234567.0, "1,200,000 hours"),
    ],
)
def test_durations(hours: float, words: str) -> None:
    assert system_words.duration(hours) == words


def test_the_machine_is_measured() -> None:
    rate = plan_machine.matmul_rate("cpu", "float32", 64)
    # Between a very slow core and a large server.
    assert 1e8 < rate < 1e14


def test_a_product_of_a_wide_model_takes_as_long() -> None:
    rows = {hidden: plan_machine._rows("cpu", hidden) for hidden in (384, 768, 1024, 4096)}
    assert rows == {384: 4096, 768: 4096, 1024: 2304, 4096: 256}
    assert plan_machine._rows("cuda", 768) == 65536


@pytest.mark.parametrize(
    ("name", "length", "times"), [("modernbert-embed", 8192, 1.8), ("embeddinggemma", 2048, 1.35)]
)
def test_windows_of_layers_save_operations_on_a_gpu_alone(
    name: str, length: int, times: float
) -> None:
    settings = read.read({name: composed(f"model={name}")})
    known = settings.models[0].shape
    assert known is not None
    assert known.layer is not None
    whole = cost.operations(1, length, known)
    windowed = cost.operations(1, length, known, on_gpu=True)
    assert whole / windowed == pytest.approx(times, rel=0.03)
    layer = replace(known.layer, window=None)
    assert cost.operations(1, length, replace(known, layer=layer), on_gpu=True) == whole
    assert cost.operations(1, 100, known, on_gpu=True) == cost.operations(1, 100, known)


def test_texts_that_a_repair_leaves_as_they_are_are_not_counted_again(
    request_: Settings,
) -> None:
    # Ten tokens a text on average. Of lengths that are distributed exponentially, e^-2 are above
    # 20, with 3 · e^-2 of the tokens; a window of 100 takes e^-10 of them away.
    late, early = parse({"length": {"logn": 20}}), parse({"length": {0: 0.9, 20: 0.8}})
    cells = grid([BASELINE, late, early], FIRST)
    one = predicted(request_, cells)
    base, spared, changed = (one.cells[cell] for cell in cells)
    assert (base.texts, changed.texts) == (200, 200)
    assert spared.texts == pytest.approx(200 * math.exp(-2), rel=1e-6)
    assert spared.tokens == pytest.approx(2000 * 3 * math.exp(-2), rel=2e-3)
    # Without the baseline's, all are encoded.
    (alone,) = predicted(request_, grid([late], FIRST)).cells.values()
    assert (alone.texts, alone.tokens) == (200, pytest.approx(2000, rel=1e-3))
    # Chunks as long as the window: hardly any text has two. With a part besides them, the shorter
    # of both limits counts.
    whole = Cell("some/model", "r", Repair(chunks=Chunks("mean", 50)), FIRST, PROTOCOL)
    both = replace(whole, repair=Repair(late, chunks=Chunks("mean", 50)))
    one = predicted(request_, [*grid([BASELINE], FIRST), whole, both])
    assert one.cells[whole].texts == pytest.approx(200 * math.exp(-5), rel=1e-6)
    assert one.cells[both].texts == pytest.approx(200 * math.exp(-2), rel=1e-6)


def test_the_texts_above_a_length_are_measured_on_their_own(request_: Settings) -> None:
    cells = grid([BASELINE, parse({"length": {"logn": 20}})], FIRST)
    recorder = Recorder(predicted(request_, cells))
    seconds = dict.fromkeys(("seconds_encode", "seconds_load", "seconds_score"), 1.0)
    for cell, texts, tokens in zip(cells, (190, 40), (1900, 1000), strict=True):
        recorder.record(
            cell,
            {"encoded_texts": texts, "encoded_tokens": tokens, "seconds_items": 0.0, **seconds},
        )
    recorder.save()
    after = predicted(request_, cells, measured=read_rates())
    # Nor are those of a repair whose short texts an earlier run has encoded taken for all texts'.
    recorder = Recorder(predicted(request_, cells[1:], measured=read_rates()))
    recorder.record(
        cells[1],
        {"encoded_texts": 120, "encoded_tokens": 1500, "seconds_items": 0.0, **seconds},
    )
    recorder.save()
    again = predicted(request_, cells, measured=read_rates())
    assert [again.cells[cell].texts for cell in cells] == pytest.approx([190, 40])
    assert [after.cells[cell].texts for cell in cells] == pytest.approx([190, 40])
    assert [after.cells[cell].tokens for cell in cells] == pytest.approx([1900, 1000])


def test_the_machine_is_known_without_torch() -> None:
    code = (
        "import sys; from lcbench.plan.machine import machine_of\n"
        "from lcbench.encode.options import EngineSettings\n"
        "engine = EngineSettings(device='cpu', batch_tokens=None, scoring=None, compile=False);"
        "one = machine_of(engine, 'float32');"
        "print(one.device, one.cores, 'torch' in sys.modules)"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "cpu 1 False\n"

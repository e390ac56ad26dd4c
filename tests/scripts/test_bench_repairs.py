"""The bench of repairs measures what it says, on tiny models and few texts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench_repairs as bench
import numpy as np
import pytest
from scipy import stats

from lcbench.encode.load import load
from lcbench.repair.repair import NO_REPAIR, parse
from lcbench.run.reader import reader_of
from lcbench.system.observer import Observer

TEXTS = ["A short text of a few words.", "It is " + " and ".join(map(str, range(100, 160)))]


@pytest.fixture(scope="module")
def found(make_model: Callable[[str], Path]) -> Any:
    """The costs of repairs of a tiny model that reads 48 tokens."""
    located = bench.located_at(str(make_model("bert")), 48)
    asked = [{"tau": 0.9}, {"extend": {"pi": 96}}, {"chunks": "max"}, {"correct": "centre"}]
    repairs = [parse(one).resolve(located.shape) for one in asked]
    return dict(
        zip(
            ("baseline", "tau", "pi", "chunks", "centre"),
            bench.measure(located, repairs, TEXTS, 0).values(),
            strict=True,
        )
    )


def test_each_repair_is_measured_beside_the_baseline(found: Any) -> None:
    for cost in found.values():
        assert len(cost.runs) == len(cost.rates) == len(cost.times) == 1
        assert min(cost.rates[0], cost.times[0], cost.runs[0].seconds) > 0
        assert cost.memory is None or abs(cost.memory) < 2**30


def test_tokens_and_vectors_are_those_that_are_read(found: Any) -> None:
    runs = {name: cost.runs[0] for name, cost in found.items()}
    tokens = {name: run.tokens for name, run in runs.items()}
    assert 48 < tokens["baseline"] < 48 + 16
    assert tokens["tau"] == tokens["centre"] == tokens["baseline"]
    assert tokens["pi"] == tokens["baseline"] + 48
    assert tokens["chunks"] > tokens["pi"]
    assert runs["baseline"].vectors == runs["pi"].vectors == 1
    # One of the short text, three or more of the long one.
    assert runs["chunks"].vectors >= 2


def test_nothing_comes_from_the_store(make_model: Callable[[str], Path]) -> None:
    located = bench.located_at(str(make_model("bert")), 48)
    loaded = load(located, device="cpu", dtype="float32")
    with reader_of(loaded, "tiny", Observer()) as reader:
        measured = bench.Bench(reader, TEXTS)
        first, second = measured.once(NO_REPAIR), measured.once(NO_REPAIR)
    assert first.tokens == second.tokens > 0


def test_the_peak_is_that_of_the_work() -> None:
    size = 64 * 2**20
    before, peak = bench.peak_of(lambda: None), bench.peak_of(lambda: np.ones(size, np.uint8).sum())
    if before is None or peak is None:
        pytest.skip("there is no /proc")
    assert size / 2 < peak - before < 4 * size
    after = bench.peak_of(lambda: None)
    assert after is not None
    assert after - before < size / 2


def test_the_page_names_what_is_slow(found: Any) -> None:
    fast = bench.Cost([bench.Run(1.0, 100, 1.0)] * 4, [0.9, 0.98, 0.95, 0.99], [1.0] * 4, 2**20)
    slow = bench.Cost([bench.Run(4.0, 200, 2.5)] * 4, [0.51, 0.5, 0.5, 0.6], [1.9] * 4, None)
    once = bench.Cost([bench.Run(4.0, 200, 2.5)], [0.5], [1.9], None)
    assert once.interval == (0, np.inf)
    for one, expected in ((fast, "0.89 to 1.02"), (slow, "0.46 to 0.61")):
        logs = np.log(one.rates)
        ends = np.exp(stats.t.interval(0.95, 3, logs.mean(), stats.sem(logs)))
        assert one.interval == pytest.approx(tuple(ends))
        assert expected == f"{ends[0]:.2f} to {ends[1]:.2f}"
    costs = {NO_REPAIR: fast, parse({"attend": "calibrate"}): slow}
    text = "\n".join(bench.page([("MiniLM", costs)], 2))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert ["τ = 1", "100", "0.95", "0.89 to 1.02", "50", "1.00", "1", "+1"] in rows
    name = "calibrate=128,strength=0.5"
    assert [name, "50", "0.53", "0.46 to 0.61", "100", "1.90", "2.5", "–"] in rows
    assert f"Significantly below 0.95 of the baseline: {name}." in text


def test_the_repairs_are_those_of_the_sweep_that_suit(minilm_folder: Path, tmp_path: Path) -> None:
    located = bench.located_at("minilm", 512)
    names = [str(one) for one in bench.suitable(located, lambda repair: True)]
    wanted = {"τ = 0.9", "centre", "attnscale=0.2", "pi=1024", "chunks max=512", "whiten=128"}
    assert wanted <= set(names)
    assert not {"ntk=1024", "τ = length_logn"} & set(names)
    small: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    small["intermediate_size"] = 32
    more = {"max_position_embeddings": 1024}
    for name, parameters, methods, expected in (
        (
            "rotary",
            {},
            ("linear", "ntk", "yarn", "selfextend", "window"),
            ["linear=1024", "ntk=1024", "yarn=1024", "selfextend=1024"],
        ),
        ("more", more, ("window", "linear"), ["window=1024"]),
        (
            "longrope",
            more | {"rope_parameters": bench.longrope()},
            ("longrope",),
            ["longrope=1024"],
        ),
    ):
        folder = bench.make_rotary(tmp_path / name, minilm_folder, **small, **parameters)
        found = bench.suitable(bench.located_at(str(folder), 512), bench.extends_by(methods))
        assert [str(one) for one in found] == expected

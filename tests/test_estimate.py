"""What a request comes to: cells, texts, tokens, hours, and what the sentence says of them."""

import re
from dataclasses import replace
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from lcbench import estimate as module
from lcbench import settings
from lcbench.errors import RequestError
from lcbench.estimate import Estimate, describe, duration, estimate, sentence
from lcbench.models import Dimensions, dimensions
from lcbench.settings import Settings, config_folder

# Operations a second of the machine that the tests are on.
RATE = 1e12


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of a certain speed."""
    monkeypatch.setattr(module, "_matmul_rate", lambda device, dtype, hidden: RATE)
    monkeypatch.setattr(module, "_EFFICIENCY", 0.5)


def asked(*overrides: str, models: tuple[str, ...] = ("minilm",)) -> Settings:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return settings.read(
            {
                model: compose("config", overrides=[*overrides, f"model={model}", "engine=cpu"])
                for model in models
            }
        )


def test_short_texts() -> None:
    # 74,107 and 73,779 characters in 1,379 texts each, of which 1,256 and 1,337 are different.
    one = estimate(asked("tasks=[STSBenchmark]", "tau=[0.9,0.8]"))
    first, second = 74107 / 1379 / 4.3 + 2, 73779 / 1379 / 4.3 + 2
    tokens = (round(1256 * first), round(1337 * second))
    assert (one.cells, one.models, one.policies, one.tasks) == (3, 1, 3, 1)
    assert one.texts == 3 * (1256 + 1337)
    assert one.tokens == 3 * sum(tokens)
    # MiniLM: 6 layers, 384 wide.
    operations = sum(
        count * 6 * (24 * 384**2 + 4 * length * 384)
        for count, length in zip(tokens, (first, second), strict=True)
    )
    assert one.hours == pytest.approx(3 * operations / (RATE * 0.5) / 3600)
    assert not one.at_least
    assert (one.unsized, one.unshaped, one.other_languages) == ((), (), False)


def test_long_texts_are_cut_at_the_window() -> None:
    task = "tasks=[LEMBQMSumRetrieval]"
    own = estimate(asked(task)).tokens
    longer = estimate(asked(task, "model.window=512")).tokens
    # 197 meetings of 53,000 characters, at the baseline and one temperature.
    assert longer - own == 2 * 197 * 256


def test_the_paper_counts_before_any_of_its_models_is_here() -> None:
    one = estimate(asked("sweep=paper", models=("ance", "gtr", "gist", "bge", "e5")))
    assert (one.cells, one.models, one.policies, one.tasks) == (1400, 5, 7, 40)
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


def test_temperatures_that_come_to_the_same_count_once() -> None:
    # Nothing that MiniLM reads is longer than its window, which is 256.
    assert estimate(asked("tau=[0.8,0.80,1,{length: logn}]")).cells == 2 * 8
    with pytest.raises(RequestError, match="the model has no layer 7"):
        estimate(asked("tau={layers: {0: 1.0, 7: 0.9}}"))


def test_a_policy_by_role_counts_queries_and_documents() -> None:
    one = estimate(asked("tau={query: 0.8, document: 1.0}", "tasks=[DocstringRetrieval]"))
    assert one.texts == 2 * (400 + 400)


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
    with pytest.raises(RequestError, match="has to say: layers, hidden, window"):
        asked("model.name=a/b", "model.shape={layers: 3}", models=("custom",))


def test_what_is_unknown_is_said() -> None:
    (custom,) = asked("model.name=a/b", models=("custom",)).models
    known = asked("tasks=[STSBenchmark,SynPerTextToneClassification]")
    one = estimate(replace(known, models=(*known.models, custom)))
    assert (one.cells, one.unsized) == (8, ("SynPerTextToneClassification",))
    assert one.unshaped == ("a/b",)
    assert one.tokens == estimate(asked("tasks=[STSBenchmark]")).tokens
    text = sentence(one)
    assert "Not counted, since their sizes are not known: SynPerTextToneClassification." in text
    assert "without those of models whose shape is not known: a/b." in text
    alone = describe(replace(asked(), models=(custom,)))
    assert "(1 model × 2 temperatures × 8 tasks), 2,640 texts, tokens and hours unknown." in alone
    assert "sizes are not known: DocstringNeedleRetrieval, DocstringPasskeyRetrieval." in alone


def test_a_sentence() -> None:
    one = Estimate(
        cells=1400,
        models=5,
        policies=7,
        tasks=40,
        texts=121_540_720,
        tokens=11_987_654_321,
        hours=3456.7,
        at_least=False,
        machine="2 cores",
        unsized=(),
        unshaped=(),
        other_languages=False,
    )
    assert sentence(one) == (
        "1,400 cells (5 models × 7 temperatures × 40 tasks), 122 M texts, 12 G tokens, "
        "about 3,500 hours of encoding on this machine (2 cores), what is finished included."
    )
    # How near a GPU comes to its matrix product's rate was never measured.
    assert "at least 3,500 hours" in sentence(replace(one, at_least=True))


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
    assert duration(hours) == words


def test_the_machine_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    rate = module._matmul_rate("cpu", "float32", 64)
    # Between a very slow core and a large server.
    assert 1e8 < rate < 1e14


def test_a_gpus_hours_are_a_lower_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu: Any = module.Machine("a GPU", "cuda", "float32")
    monkeypatch.setattr(module, "_machine", lambda settings: gpu)
    cpu = module.Machine("1 core", "cpu", "float32")
    lower = estimate(asked())
    monkeypatch.setattr(module, "_machine", lambda settings: cpu)
    assert lower.at_least
    assert lower.hours == pytest.approx(0.5 * estimate(asked()).hours)
    assert re.search(r"at least .* of encoding on this machine \(a GPU\)", sentence(lower))

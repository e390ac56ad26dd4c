"""Exit statuses of jobs, also of those that a launcher runs in another process."""

import pickle
import re
import shlex
from pathlib import Path

import pytest
from composed import composed_by_hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import MissingConfigException

from lcbench.api import overrides
from lcbench.api.explain import explain
from lcbench.cli import app, console
from lcbench.errors import RequestError
from lcbench.repair.repair import NO_REPAIR, Repair
from lcbench.settings.read import read
from lcbench.tempscale.policy import ByRole


def test_the_worst_status_counts() -> None:
    statuses = app._Statuses()
    for status in (0, 2, 1):
        statuses.add(status)
    assert statuses.worst == 2


def test_in_another_process_a_failure_is_raised_with_what_was_complained_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    complaints: list[str] = []
    monkeypatch.setattr(app, "COMPLAINTS", complaints)
    monkeypatch.setattr(console, "COMPLAINTS", complaints)
    there = pickle.loads(pickle.dumps(app._Statuses()))
    there.add(0)
    console.complain("tau=0 is not a temperature")
    with pytest.raises(app._FailedInSubprocess) as raised:
        there.add(2)
    brought_back = pickle.loads(pickle.dumps(raised.value))
    assert brought_back.status == 2
    assert brought_back.complaints == ("tau=0 is not a temperature",)
    assert capsys.readouterr().err == "lcbench: error: tau=0 is not a temperature\n"


def test_only_submitits_own_errors_are_taken_for_its() -> None:
    pytest.importorskip("submitit")
    from submitit.core.utils import CommandFunction

    for fault, is_its_own in ((CommandFunction(["false"], verbose=False), True), (int, False)):
        with pytest.raises(Exception, match=r".*") as raised:
            fault("x")
        assert app._is_from_submitit(raised.value) is is_its_own


def test_a_launcher_that_is_not_installed_is_named() -> None:
    missing = MissingConfigException("", "hydra/launcher/submitit_slurm", options=["basic"])
    assert explain(missing) == (
        "hydra/launcher=submitit_slurm needs a package: pip install 'lcbench[slurm]'"
    )


@pytest.mark.parametrize("key", ["model.name", "mirror", "results_dir"])
@pytest.mark.parametrize(
    "value",
    ["a/lr=1", "a,b", "a[1]", "{a}", "büchlein [1] 50%", "ü", "it's", 'a"b', "a=\\", "[1]"],
)
def test_the_command_that_a_message_shows_can_be_read(key: str, value: str) -> None:
    with pytest.raises(RequestError) as raised:
        overrides.read_words([f"{key}={value}", "tau=0.8"], "config")
    shown = re.search(r"(?:quote it|As one|As text): ('.*')(?:;|$)", str(raised.value))
    assert shown is not None
    (word,) = shlex.split(shown.group(1))
    read = OverridesParser.create().parse_override(word)
    assert (read.key_or_group, read.value()) == (key, value)
    assert overrides.read_words([word], "config") == [word]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["tau={query:", "0.8,", "document:", "1.0}"], "'tau={query: 0.8, document: 1.0}'"),
        (["tasks=[MTEB(eng, v2),STS13]"], """'tasks=["MTEB(eng, v2)",STS13]'"""),
        (["tau=0.8,0.9"], "As one list: 'tau=[0.8,0.9]'"),
        (["model=[a/b,minilm]"], "'models=[a/b,minilm]'"),
        (["report"], "report is a command and must come first: python -m lcbench report"),
        (
            ["seed=1"],
            "seed is a key of python -m lcbench collapse and python -m lcbench report and "
            "python -m lcbench tune and python -m lcbench card, not of python -m lcbench.",
        ),
        (["+seed=1"], "seed is a key of python -m lcbench collapse and python -m lcbench report"),
    ],
)
def test_what_is_wrong_with_a_word_and_what_is_right(words: list[str], shown: str) -> None:
    with pytest.raises(RequestError) as raised:
        overrides.read_words(words, "config")
    assert shown in str(raised.value)


def test_a_key_of_another_command() -> None:
    with pytest.raises(RequestError, match=r"docs.documents is a key of python -m lcbench and"):
        overrides.read_words(["docs.documents=20"], "tasks")


def test_a_model_may_be_named_by_its_name_or_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    Path("conf/model/org").mkdir(parents=True)
    Path("conf/model/org/own.yaml").touch()

    def read(*words: str) -> list[str]:
        return overrides.read_words(words, "config")

    assert read("model=BAAI/bge-m3") == ["model=custom", "model.name=BAAI/bge-m3"]
    assert read("model=./mine") == ["model=custom", "model.name=./mine"]
    assert read("model=mine") == ["model=custom", "model.name=mine"]
    assert read("model=~/x") == ["model=custom", 'model.name="~/x"']
    assert read(f"model={tmp_path}") == ["model=custom", f"model.name={tmp_path}"]
    assert read("model=bge", "tau=0.8") == ["model=bge", "tau=0.8"]
    assert read("model=bgee") == ["model=bgee"]
    own = ["--config-dir", "conf", "model=org/own"]
    assert read(*own) == own


@pytest.mark.parametrize("sweep", ["demo", "roles"])
def test_a_policy_takes_the_place_of_a_sweeps_temperatures(sweep: str) -> None:
    policy = "tau={query: 0.8, document: 1.0}"
    words = overrides.read_words([f"sweep={sweep}", policy], "config")
    settings = read({"minilm": composed_by_hydra(*words)})
    # With the baseline, as always.
    assert settings.repairs == (NO_REPAIR, Repair(ByRole(query=0.8, document=1.0)))
    # A model that is exported has one policy.
    assert overrides.read_words([policy], "export") == [policy]


def test_a_name_of_digits_stays_a_name() -> None:
    assert overrides.read_words(["results_dir=1_000"], "config") == ['results_dir="1_000"']
    assert overrides.read_words(["mirror=null", "tau=1_0"], "config") == ["mirror=null", "tau=1_0"]


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(RequestError, match=r"is not valid utf-8. Rename"):
        overrides.read_words(["model.name=m\udcff"], "config")


def test_a_process_limit_is_reported_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(app, "given_overrides", list)

    def job(config: object) -> int:
        raise RuntimeError("can't start new thread")

    assert app._run_job(job, {}) == 1
    assert "ulimit -u" in capsys.readouterr().err


def test_several_temperatures_that_are_no_list_are_refused() -> None:
    """Which bash makes of tau={0.9,0.8}, and of which Hydra would keep the last."""
    with pytest.raises(RequestError, match=r"more than once\. As one list: 'tau=\[0\.9,0\.8\]'"):
        overrides.read_words(["tau=0.9", "tau=0.8"], "config")
    assert overrides.read_words(["tau=0.9"], "config") == ["tau=0.9"]


def test_an_address_with_a_password_is_refused_before_hydra_writes_it_down() -> None:
    for word in ("mirror=https://me:geheim@hub.example", 'mirror="http://me:ge heim@hub.example"'):
        with pytest.raises(RequestError, match="mirror contains a user or a password") as error:
            overrides.read_words(["-m", word, "tau=0.9,0.8"], "config")
        assert "geheim" not in str(error.value)
        assert "heim" not in str(error.value)

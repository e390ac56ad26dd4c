"""Exit statuses of jobs, also of those that a launcher runs in another process."""

import pickle

import pytest
from hydra.errors import MissingConfigException

from lcbench import command


def test_the_worst_status_counts() -> None:
    statuses = command._Statuses()
    for status in (0, 2, 1):
        statuses.add(status)
    assert statuses.worst == 2


def test_in_another_process_a_failure_is_raised_with_what_was_complained_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "_COMPLAINTS", [])
    there = pickle.loads(pickle.dumps(command._Statuses()))
    there.add(0)
    command.complain("tau=0 is not a temperature")
    with pytest.raises(command._FailedElsewhere) as raised:
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
        assert command._is_of_submitit(raised.value) is is_its_own


def test_a_launcher_that_is_not_installed_is_named() -> None:
    missing = MissingConfigException("", "hydra/launcher/submitit_slurm", options=["basic"])
    assert command._explain(missing) == (
        "hydra/launcher=submitit_slurm needs a package: pip install 'lcbench[slurm]'"
    )

"""Packs: mteb reads them, `sha256sum` checks them, and so does lcbench."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import mteb
import pytest
from result_cells import PROTOCOL, cell, outcome

import lcbench
from lcbench.cli import app
from lcbench.errors import RequestError
from lcbench.results.folder import Results
from lcbench.tempscale.policy import BASELINE, Constant

MODEL = f"some__model/{'f' * 40}"


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Results:
    monkeypatch.chdir(tmp_path)
    found = Results(tmp_path / "runs")
    for policy, score in ((BASELINE, 0.5), (Constant(0.8), 0.625), (Constant(0.9), 0.75)):
        found.write(cell(policy), outcome(cell(policy), score))
    return found


def files_of(folder: Path) -> set[str]:
    return {one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file()}


def test_mteb_reads_a_pack_and_sha256sum_checks_it(
    results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pack", "results_dir=runs", "repairs=0.8", "out=packs/mine"]
    assert app.run(words) == 0
    shown = capsys.readouterr().out
    assert shown == (
        "2 results in packs/mine, with digests in SHA256SUMS. mteb's results repository takes the "
        "folder results/ in it.\n"
        "It does not take protocols whose prompts and window differ from mteb's: run with "
        "protocol=leaderboard.\n"
    )
    pack = tmp_path / "packs" / "mine"
    baseline, repaired = f"results/{MODEL}", f"results/{MODEL}/experiments/tau_0.8"
    assert files_of(pack) == {
        "SHA256SUMS",
        *(
            f"{one}/{name}"
            for one in (baseline, repaired)
            for name in ("STSBenchmark.json", "model_meta.json")
        ),
    }
    assert (pack / baseline / "STSBenchmark.json").read_bytes() == results.files(
        cell()
    ).result.read_bytes()
    loaded = mteb.ResultCache(pack).load_results(
        include_remote=False, load_experiments="match_name"
    )
    assert sorted(one.task_results[0].get_score() for one in loaded.model_results) == [0.5, 0.625]
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=pack, check=True)
    assert app.run(["pack", "check=packs/mine"]) == 0
    assert capsys.readouterr().out == "packs/mine: 4 files as packed.\n"
    assert app.run(words) == 2
    assert "out=packs/mine already exists" in capsys.readouterr().err


def test_python_packs_and_checks_alike(
    results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = lcbench.pack(tmp_path / "pack", results.folder, repairs=0.8)
    assert (packed.folder, packed.files, packed.cells) == (tmp_path / "pack", 4, 2)
    assert packed.remarks == (
        "protocols whose prompts and window differ from mteb's: run with protocol=leaderboard",
    )
    (tmp_path / "pack" / "other.json").write_text("{}", encoding="utf-8")
    checked = lcbench.pack(check=tmp_path / "pack")
    assert (checked.files, checked.wrong) == (4, ("other.json is not listed in SHA256SUMS",))
    for keywords, message in (
        ({"out": tmp_path / "pack", "results_dir": results.folder}, "already exists"),
        ({"results_dir": results.folder}, "out needs a path"),
        ({"out": "a", "check": "b"}, "omit one of them"),
        ({"out": "a", "results_dir": tmp_path / "none"}, "has no results to pack"),
        ({"out": "a", "results_dir": results.folder, "protocols": "none"}, "protocols=none"),
        ({"check": tmp_path / "none"}, "none"),
        ({"out": "a", "model": "x"}, "model is"),
    ):
        with pytest.raises(RequestError, match=message):
            lcbench.pack(**keywords)  # type: ignore[arg-type]
    assert capsys.readouterr() == ("", "")


def test_a_pack_that_was_tampered_with(
    results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["pack", "results_dir=runs", "out=pack"]) == 0
    capsys.readouterr()
    folder = tmp_path / "pack"
    at = folder / "results" / MODEL / "experiments"
    (at / "tau_0.8" / "STSBenchmark.json").write_text("{}", encoding="utf-8")
    (at / "tau_0.9" / "STSBenchmark.json").unlink()
    (folder / "other.json").write_text("{}", encoding="utf-8")
    # A link to a file with the right digest is not the file.
    linked = folder / "results" / MODEL / "STSBenchmark.json"
    shutil.move(linked, tmp_path / "aside.json")
    linked.symlink_to(tmp_path / "aside.json")
    assert app.run(["pack", "check=pack"]) == 1
    place = f"results/{MODEL}"
    assert capsys.readouterr().err.replace("lcbench: error: ", "").splitlines() == [
        f"{place}/STSBenchmark.json is missing",
        f"{place}/experiments/tau_0.8/STSBenchmark.json was changed",
        f"{place}/experiments/tau_0.9/STSBenchmark.json is missing",
        "other.json is not listed in SHA256SUMS",
    ]


@pytest.mark.parametrize(
    "line", ["", "0" * 63 + "  a", "0" * 64 + "  ../a", "0" * 64 + "  /etc/passwd"]
)
def test_a_list_of_digests_that_leads_elsewhere(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "SHA256SUMS").write_text(f"{line}\n", encoding="utf-8")
    assert app.run(["pack", f"check={tmp_path}"]) == 2
    assert "line 1: not a digest and a path in the folder" in capsys.readouterr().err


def test_a_task_under_two_protocols_needs_a_choice(
    results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = replace(PROTOCOL, window=256)
    of = replace(cell(), protocol=other)
    finished = outcome(of, 0.25)
    results.write(of, replace(finished, provenance={**finished.provenance, "window": 256}))
    words = ["pack", "results_dir=runs", "repairs=1", "out=pack"]
    assert app.run(words) == 2
    message = capsys.readouterr().err
    assert f"protocols=[{PROTOCOL.key}]" in message
    assert f"protocols=[{other.key}]" in message
    assert app.run([*words, f"protocols={other.key}"]) == 0
    assert (
        '"main_score": 0.25'
        in (tmp_path / "pack/results" / MODEL / "STSBenchmark.json").read_text()
    )
    assert app.run([*words, "protocols=other"]) == 2
    assert "protocols=other: there are results under paper-" in capsys.readouterr().err


def test_imported_results_are_not_packed_and_do_not_keep_others_out(
    results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "public" / "results" / "some__other" / "external"
    folder.mkdir(parents=True)
    entry = {"main_score": 0.75, "hf_subset": "default", "languages": ["eng-Latn"]}
    content = {"dataset_revision": "b" * 40, "task_name": "STS12", "scores": {"test": [entry]}}
    content |= {"mteb_version": None, "evaluation_time": None}
    (folder / "STS12.json").write_text(json.dumps(content), encoding="utf-8")
    assert app.run(["import", "public", "results_dir=runs"]) == 0
    assert app.run(["pack", "results_dir=runs", "out=pack"]) == 0
    shown = capsys.readouterr()
    assert "3 results in pack" in shown.out
    assert "imported results and quick looks (limit=) are not packed" in shown.err


def test_quick_looks_and_other_models_are_not_packed(
    results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of = replace(cell(task="STS12"), protocol=replace(PROTOCOL, limit=10))
    results.write(of, outcome(of, 0.25))
    assert app.run(["pack", "results_dir=runs", "out=pack"]) == 0
    assert "quick looks (limit=) are not packed" in capsys.readouterr().err
    assert not [one for one in files_of(tmp_path / "pack") if "STS12" in one]
    assert app.run(["pack", "results_dir=runs", "models=bge", "out=other"]) == 2
    assert "models=BAAI/bge-base-en-v1.5: there are no results" in capsys.readouterr().err
    assert app.run(["pack", "results_dir=runs"]) == 2
    assert "out needs a path" in capsys.readouterr().err


def test_a_pack_of_several_protocols_says_so(
    results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of = replace(cell(), task="STS12", protocol=replace(PROTOCOL, pooling="cls"))
    results.write(of, outcome(of, 0.25))
    assert app.run(["pack", "results_dir=runs", "repairs=1", "out=pack"]) == 0
    shown = capsys.readouterr().out
    assert "protocols whose pooling and prompts and window differ from mteb's" in shown
    keys = sorted((PROTOCOL.key, of.protocol.key))
    said = f"results of one model under 2 protocols (some/model: {keys[0]}, {keys[1]})"
    assert f"{said}: protocols= takes one" in shown


def test_a_pack_is_not_among_the_results(
    results: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["pack", "results_dir=runs", "out=runs/pack"]) == 2
    assert "out=runs/pack is in results_dir=runs, whose reports" in capsys.readouterr().err
    assert not (results.folder / "pack").exists()


def test_an_empty_list_of_digests_is_no_pack(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "SHA256SUMS").write_text("", encoding="utf-8")
    assert app.run(["pack", f"check={tmp_path}"]) == 2
    assert "SHA256SUMS lists no files." in capsys.readouterr().err

"""Wrong requests: one message that names the key, exit status 2, no traceback, within seconds."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from hub_server import DeadHub

WRONG = [
    (["tau=0"], "tau=0 is not a temperature"),
    (["tau=-1"], "tau=-1 is not a temperature"),
    (["tau=abc"], "tau=abc is not a temperature"),
    (["tau=[]"], "tau=[] is empty"),
    (["tau=.nan"], "tau=.nan is not a temperature"),
    (["tau=["], "tau=[ cannot be read"),
    (["tau=0.8,0.9"], "-m tau=0.8,0.9"),
    (["tua=0.8"], "tua is not a key. Did you mean tau?"),
    (["+tua=0.8"], "tua is not a key. Did you mean tau?"),
    (["model.windw=1"], "model.windw is not a key. Did you mean model.window"),
    (["model=bgee"], "model=bgee: there is no such config. Did you mean bge?"),
    (["model=[minilm,bge]"], "-m model=minilm,bge"),
    (["sweep=dem"], "sweep=dem: there is no such config. Did you mean demo?"),
    (
        ["tasks=[STSBenchmrk]"],
        "task, suite or benchmark of mteb. Did you mean STSBenchmark",
    ),
    (["model.window=100000"], "it can read at most 512 tokens"),
    (["mirror=/no/such/folder"], "mirror=/no/such/folder is not a folder"),
    (["results_dir=file/runs"], "results_dir=file/runs cannot be written"),
    (["model=bge"], "BAAI/bge-base-en-v1.5 (revision a5beb1e3"),
    (["model=qwen3-0.6b", "protocol=leaderboard"], "Qwen3-Embedding-0.6B (revision b22da495"),
    (["model=a/b", "protocol=leaderboard"], "model=custom: a/b"),
    (["model.dimensions=385"], "model.dimensions=385: an embedding of sentence-transformers/all"),
    (["models=[bge,gtr]"], "sentence-transformers/gtr-t5-base (revision 7027e959"),
    (["tasks=[STSBenchmark]"], "mteb/stsbenchmark-sts (for STSBenchmark)"),
    (["model.name=BAAI/bge-base-en-v1.5"], "model=custom model.name="),
    (["model=bge", "model.name=a/b"], "model=bge is always the same model"),
    (["model.package=foo.bar"], "model=minilm is always the same model"),
    (["engine.device=mps"], "engine.device=mps: torch finds no MPS device"),
    (["-m", "tau=0.9,0.7", "results_dir=file/runs"], "file/runs"),
    (["--config-name", "foo"], "--config-name foo: there is no such config"),
    (["tasks=[CQADupstackRetrieval]"], "mteb/cqadupstack-english (for CQADupstackEnglish"),
    (['tasks="MTEB(eng, v3)"'], "Did you mean MTEB(eng, v2)"),
    (['tasks="MIEB(Img)"'], "none of its tasks is public and text-only"),
    (["tasks=[Caltech101]"], "Caltech101 is not a text-only task"),
    (["tasks=[STSBenchmark]", "subsets=[fr]"], "subsets=fr: STSBenchmark has none of these"),
    (["subsets=[]"], "subsets=[] is empty"),
    (["protocol=leaderbord"], "protocol=leaderbord: there is no such config. Did you mean leader"),
    (["tau={layers: {6: 0.8}}"], "the model has no layer 6; its layers are 0 to 5"),
    (["tau={length: {0: 1.0, 300: 0.8}}"], "reads at most 256 of one"),
    (["engine.device=cuda"], "torch finds no CUDA device here"),
    (["docs.documents=99999"], "docs.documents=99999 exceeds the number in the libraries"),
    (
        ["docs.synthetic_documents=9999"],
        "docs.synthetic_documents=9999 exceeds the number of distinct names, 1024",
    ),
    (["model.window=32"], "docs.synthetic_lengths=auto: this model's window is too short"),
    (
        ["--config-dir", "/no/such/folder"],
        "Additional config directory '/no/such/folder' not found",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_request(
    run, typed, dead_hub: DeadHub, tmp_path: Path, arguments: list[str], message: str
) -> None:
    if arguments == ["engine.device=cuda"]:
        import torch

        if torch.cuda.is_available():
            pytest.skip("gpu: there is one here")
    (tmp_path / "file").touch()
    if arguments in (["tau=0"], ["model=bge"]):
        # In full, with its start, one that is refused as it is typed and one that is looked for.
        done = run(*arguments, fresh=True, HF_ENDPOINT=dead_hub.address)
    else:
        done = typed(*arguments, HF_ENDPOINT=dead_hub.address)
    assert done.returncode == 2
    assert message in done.stderr
    assert "lcbench: error: " in done.stderr
    assert "Traceback" not in done.stderr
    # Whether the hub answers at all: whoever asks it again and again takes minutes.
    assert dead_hub.calls <= 1
    # Nothing is left behind but, at most, the empty folder of results.
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "file"]


def test_the_report_of_nothing(run) -> None:
    done = run("results_dir=nothing", command="report")
    assert done.returncode == 2
    assert "results_dir=nothing has no results" in done.stderr


def test_help_lists_the_keys_and_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from lcbench.cli.app import main; sys.argv[:] = ['lcbench', '--help']\n"
        "try: main()\n"
        "finally: print(sorted({'mteb', 'torch', 'pandas', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "results_dir: results/runs" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.exhaustive
@pytest.mark.alone
@pytest.mark.parametrize(("argument", "most"), [("--help", 1.5), ("tasks", 3.0)])
def test_what_needs_no_model_is_quick(run, argument: str, most: float) -> None:
    run(argument, fresh=True)
    seconds = []
    for _ in range(3):
        started = time.monotonic()
        assert run(argument, fresh=True).returncode == 0
        seconds.append(time.monotonic() - started)
    assert min(seconds) < most


def test_a_config_directory_of_ones_own(run, tmp_path: Path) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "own.yaml").write_text(
        "name: no/such-model\nsource: hub\npackage: null\nrevision: null\nwindow: null\n"
        "trust_remote_code: false\n"
    )
    done = run("--config-dir", "mine", "model=own", "offline=true")
    assert done.returncode == 2
    assert "\n  model=own: no/such-model\n" in done.stderr
    command = f"prefetch --config-dir {tmp_path / 'mine'} model=own mirror=mirror\n"
    assert command in done.stderr


def test_a_value_from_the_environment_may_be_anything(run, tmp_path: Path) -> None:
    """Hydra has a grammar for what is typed; what a reference leads to has none."""
    folder = tmp_path / "a b=c,(d) é"
    folder.mkdir()
    refused = run("results_dir=${oc.env:ODD}", "model=nosuch", "sweep=demo", ODD=str(folder))
    assert refused.returncode == 2
    assert "model=nosuch" in refused.stderr
    empty = run("manifest=${oc.env:ODD}", "element=0", ODD=str(folder))
    assert empty.returncode == 2
    assert f"manifest={folder}" in empty.stderr
    assert "cannot be read: No such file or directory" in empty.stderr


def test_a_wrong_job_of_another_launcher_is_reported_here(run) -> None:
    """Hydra runs it in another process, whose status and words have to come back."""
    # Which gets a copy of what is to be done there: that depends on where it was defined.
    wrong = run("-m", "hydra/launcher=submitit_local", "tau=0", "results_dir=runs", fresh=True)
    assert wrong.returncode == 2
    assert "tau=0 is not a temperature" in wrong.stderr
    assert "Traceback" not in wrong.stderr

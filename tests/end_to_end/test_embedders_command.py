"""Embedders of today from a local copy, by their names on the hub: sweep, report and collapse."""

import json
import re
from pathlib import Path

import mteb
import pytest
import yaml
from embedders import TWINS, write_twin
from end_to_end_support import SMALL, json_results

from lcbench.settings.configs import config_folder

TASKS = "tasks=[DocstringRetrieval,DocstringLibraryClassification]"
ROOT = Path(__file__).parents[2]


def config_of(name: str) -> dict:
    return yaml.safe_load((config_folder() / "model" / f"{name}.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("config", "asked", "dimensions"),
    [
        ("qwen3-0.6b", "model=Qwen/Qwen3-Embedding-0.6B", []),
        (
            "embeddinggemma",
            "model=embeddinggemma",
            ["model.matryoshka=[16]", "model.dimensions=16"],
        ),
    ],
)
def test_a_sweep_from_a_local_copy(
    run, tmp_path: Path, minilm_folder: Path, config: str, asked: str, dimensions: list[str]
) -> None:
    write_twin(config, tmp_path / "mirror" / config_of(config)["name"], minilm_folder)
    request = [asked, *dimensions, "mirror=mirror", "protocol=leaderboard", "results_dir=runs"]
    done = run(*request, TASKS, "tau=0.8", *SMALL)
    assert (done.returncode, done.stderr) == (0, "")
    assert "prompts: mteb's for" in done.stdout
    cells = json_results(tmp_path / "runs")
    records = [
        json.loads(path.read_text().splitlines()[-1])
        for path in (tmp_path / "runs").rglob("*.provenance.jsonl")
    ]
    assert len(cells) == len(records) == 4
    protocols = [record["protocol"] for record in records]
    assert {one["prompts"] for one in protocols} == {"registry"}
    assert {one.get("dimensions") for one in protocols} == {16 if dimensions else None}
    prompts = {
        prompt
        for record in records
        if "DocstringRetrieval" in record["cell"]
        for prompt in [record["prompts"]["query"]]
    }
    starts = "Instruct: " if config == "qwen3-0.6b" else "task: search result | query: "
    assert all(prompt.startswith(starts) for prompt in prompts)
    done = run("results_dir=runs", command="report")
    assert (done.returncode, done.stderr) == (0, "")
    if dimensions:
        assert "16 dimensions" in done.stdout + (tmp_path / "runs/report/tables.md").read_text()
    done = run(*request, "tasks=[DocstringRetrieval]", "tau=0.8", *SMALL[:-1], command="collapse")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_documentation_lists_the_models_and_mteb_their_revisions() -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    rows = {
        cells[1]: cells
        for line in re.findall(r"^\| `[^|]+` \| [\w./-]+/.*\|$", page, re.M)
        if (cells := [one.strip(" `") for one in line.split("|")])
    }
    assert rows.keys() == TWINS.keys()
    for name, cells in rows.items():
        config = config_of(name)
        meta = mteb.get_model_meta(config["name"], fetch_from_hf=False)
        assert (cells[2], config["revision"]) == (meta.name, meta.revision)
        shape = config["shape"]
        assert [int(one.replace(",", "")) for one in cells[3:5]] == [
            shape["window"],
            shape["hidden"],
        ]
        trained = config.get("matryoshka")
        least = trained.get("least") if isinstance(trained, dict) else None
        assert cells[5] == (
            f"{least} or more" if least else ", ".join(map(str, trained)) if trained else "no"
        )
        pooling = {"lasttoken": "last token"}.get(TWINS[name].pooling, TWINS[name].pooling)
        assert cells[7] == pooling

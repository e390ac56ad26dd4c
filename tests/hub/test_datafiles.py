"""Which files of a dataset's repository a task reads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lcbench.hub.datafiles import Reads, configs_of, files_read, reads_of, select_files
from lcbench.tasks.registry import registry

TREE = (
    ".gitattributes",
    "README.md",
    "dataset_infos.json",
    "en/test-00000.parquet",
    "en/train-00000.parquet",
    "en/train-00001.parquet",
    "de/test-00000.parquet",
    "de/train-00000.parquet",
    "loader.py",
)
CARDS = ["README.md", "dataset_infos.json"]


def by_split(language: str) -> dict[str, Any]:
    return {
        "data_files": [
            {"split": "train", "path": f"{language}/train-*"},
            {"split": "test", "path": [f"{language}/test-00000.parquet"]},
        ]
    }


CONFIGS = {"en": by_split("en"), "de": by_split("de")}


def parts(*names: str | Sequence[str]) -> Reads:
    return Reads(tuple((name,) if isinstance(name, str) else tuple(name) for name in names))


def read(reads: Reads, configs: dict[str, Any] = CONFIGS, tree: Sequence[str] = TREE) -> list[str]:
    """Return the data files that are read, having seen that the cards always are."""
    files = list(select_files(tree, configs, reads).files)
    assert files[:2] == CARDS
    return files[2:]


EN = [path for path in TREE if path.startswith("en/")]
DE = [path for path in TREE if path.startswith("de/")]


def test_only_the_files_of_the_configurations_that_are_read() -> None:
    assert read(parts("en")) == EN
    assert read(parts("en", "de")) == [*DE, *EN]


def test_the_first_configuration_is_always_there() -> None:
    """`datasets` takes the format of a folder's configurations from the first one's files."""
    assert read(parts("de")) == [*DE, *EN]


@pytest.mark.parametrize(
    "reads", [Reads(None), parts("fr"), parts("en", "fr"), parts("default")], ids=str
)
def test_all_data_where_the_card_does_not_say(reads: Reads) -> None:
    assert read(reads) == [*DE, *EN]


def test_no_card_no_choice() -> None:
    assert read(parts("en"), {}) == [*DE, *EN]


def test_the_default_configuration() -> None:
    assert read(parts("default"), {"en": by_split("en")}) == EN
    marked = {"en": {**by_split("en"), "default": True}, "de": by_split("de")}
    assert read(parts("default"), marked) == EN
    named = {"default": by_split("en"), "de": {**by_split("de"), "default": True}}
    assert read(parts("default"), named) == EN


def test_alternatives_and_extras() -> None:
    configs = {name: {"data_files": f"{name}/*"} for name in ("corpus", "queries", "qrels")}
    tree = [*CARDS, *(f"{name}/0.jsonl" for name in (*configs, "top_ranked", "other"))]
    reads = Reads((("corpus",), ("query", "queries"), ("default", "qrels")), ("top_ranked",))
    first = ["corpus/0.jsonl", "qrels/0.jsonl", "queries/0.jsonl"]
    assert read(reads, configs, tree) == first
    configs["top_ranked"] = {"data_files": ["top_ranked/0.jsonl"]}
    assert read(reads, configs, tree) == [*first, "top_ranked/0.jsonl"]


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"data_files": "**/test-*.parquet"}, ["de/test-00000.parquet", "en/test-00000.parquet"]),
        ({"data_files": "./de/*"}, DE),
        ({"data_dir": "de"}, DE),
        ({"data_dir": "de/", "data_files": "t*"}, DE),
        ({"data_files": {"train": "en/train-00000.parquet"}}, ["en/train-00000.parquet"]),
        # Not a pattern that fsspec knows: nothing is left out.
        ({"data_files": "en/**.parquet"}, [*DE, *EN]),
        # Neither hidden files nor code are data.
        ({"data_files": ["**", ".gitattributes", "loader.py"]}, [*DE, *EN]),
    ],
    ids=str,
)
def test_patterns(config: dict[str, Any], found: list[str]) -> None:
    assert read(parts("one"), {"one": config}) == found


def test_patterns_that_match_nothing_are_reported() -> None:
    tree = [path for path in TREE if not path.startswith("de/train")]
    selection = select_files(tree, CONFIGS, parts("de"))
    assert selection.unmatched == ("de/train-*",)
    assert select_files(tree, CONFIGS, parts("en")).unmatched == ()


def test_several_tasks_of_one_dataset() -> None:
    configs = {name: {"data_files": f"{name}/*"} for name in ("a", "b", "c")}
    tree = ["README.md", "a/0.csv", "b/0.csv", "c/0.csv"]
    both = files_read(tree, configs, [parts("a"), parts("c")])
    assert both.files == ("README.md", "a/0.csv", "c/0.csv")


@pytest.mark.parametrize(
    ("task", "subsets", "expected"),
    [
        ("STSBenchmark", None, parts("default")),
        ("LEMBQMSumRetrieval", None, parts("qmsum")),
        # mteb reads all languages at once, unless they are restricted.
        ("MassiveIntentClassification", None, parts("default")),
        ("MassiveIntentClassification", ("en", "de"), parts("en", "de")),
        ("AmazonReviewsClassification", ("en",), parts("en")),
        (
            "NFCorpus",
            None,
            Reads(
                (("corpus",), ("query", "queries"), ("default", "qrels")),
                ("top_ranked", "instruction"),
            ),
        ),
        (
            "MIRACLRetrieval",
            ("sw",),
            Reads(
                (("sw-corpus",), ("query", "sw-queries"), ("sw-qrels",)),
                ("sw-top_ranked", "sw-instruction"),
            ),
        ),
    ],
)
def test_what_a_task_reads(task: str, subsets: tuple[str, ...] | None, expected: Reads) -> None:
    assert reads_of(registry().tasks[task], subsets) == expected


def test_of_a_task_that_loads_by_itself_all_is_read() -> None:
    own = [one for one in registry().tasks.values() if one.loading == "own" and not one.config]
    assert own
    assert {reads_of(entry, None) for entry in own} == {Reads(None)}


def test_the_card_and_the_yaml_next_to_it(tmp_path: Path) -> None:
    assert configs_of(tmp_path) == {}
    card = "configs:\n- config_name: en\n  data_files: en.csv\n"
    (tmp_path / "README.md").write_text(f"---\n{card}---\n# A dataset\n")
    assert configs_of(tmp_path) == {"en": {"data_files": "en.csv"}}
    (tmp_path / ".huggingface.yaml").write_text(card.replace("en", "de"))
    assert configs_of(tmp_path) == {"de": {"data_files": "de.csv"}}


@pytest.mark.parametrize(
    "card", ["no yaml", "---\nconfigs: 3\n---\n", "---\n: [\n---\n", "---\nconfigs:\n- a: 1\n---\n"]
)
def test_a_card_that_says_nothing(tmp_path: Path, card: str) -> None:
    (tmp_path / "README.md").write_text(card)
    assert configs_of(tmp_path) == {}

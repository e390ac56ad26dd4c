"""Paths of a user's texts on a command line and in Python, whatever characters they have."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from composed import hydra_at_hand
from hydra import compose

from lcbench.api.keywords import words_of
from lcbench.api.overrides import read_words
from lcbench.errors import RequestError
from lcbench.settings.values import container_of

NAMES = [
    "plain.jsonl",
    "with space.jsonl",
    "(1).jsonl",
    "a (1).jsonl",
    "it's.jsonl",
    'say "so".jsonl',
    "a,b.jsonl",
    "a=b.jsonl",
    "a:b.jsonl",
    "{a}.jsonl",
    "[a].jsonl",
    "a#b$c&d.jsonl",
    "back\\slash.jsonl",
    "日本語.jsonl",
]


def composed_tasks(words: list[str]) -> Any:
    with hydra_at_hand():
        return container_of(compose("config", overrides=read_words(words, "config")))["tasks"]


def command_of(error: RequestError) -> list[str]:
    """Return the words of the command that a message shows in quotes."""
    shown = str(error)
    start = re.search(r"(?:quote it|As one(?: list)?): ('tasks=)", shown)
    assert start is not None, shown
    text = shown[start.start(1) :].partition("; as separate runs")[0]
    return shlex.split(text)


@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_read_or_the_message_shows_how(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_text("", encoding="utf-8")
    assert read_or_shown(f"tasks=./{name}") == f"./{name}"


@pytest.mark.parametrize("name", ["with space.jsonl", "a (1).jsonl", "it's.jsonl", "a=b.jsonl"])
def test_a_column_map_of_any_path(name: str) -> None:
    found = read_or_shown(f"tasks=[{{path: ./{name}, text: body}}]")
    assert found == [{"path": f"./{name}", "text": "body"}]


def read_or_shown(word: str) -> Any:
    """Return what a word says, or what the command says that its message shows."""
    try:
        return composed_tasks([word])
    except RequestError as error:
        return composed_tasks(command_of(error))


@pytest.mark.parametrize("name", NAMES[2::3])
def test_python_takes_any_path(name: str) -> None:
    assert composed_tasks(words_of("config", {"tasks": Path(name)})) == f"./{name}"
    asked = [{"path": Path("x", name), "text": "body"}, "docs"]
    found = composed_tasks(words_of("config", {"tasks": asked}))
    assert found == [{"path": f"x/{name}", "text": "body"}, "docs"]


def test_a_folder_without_a_slash_is_a_path_in_python() -> None:
    assert words_of("config", {"tasks": Path("docs")}) == ["tasks=./docs"]
    assert words_of("config", {"tasks": "docs"}) == ["tasks=docs"]

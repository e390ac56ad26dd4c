"""The Dockerfile, which tests cannot build: what it copies is there, and is what a wheel needs."""

import re
import tomllib
from pathlib import Path

from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile, each with its arguments in one line."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def copied() -> set[str]:
    sources = [rest.split()[:-1] for word, rest in instructions() if word == "COPY"]
    return {path for one in sources for path in one}


def test_what_is_copied_is_there_and_is_sent_to_docker() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert [path for path in copied() if not (ROOT / path).exists()] == []
    assert {line[1:] for line in ignored if line.startswith("!")} == copied()


def test_all_that_a_wheel_is_made_of_is_copied() -> None:
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}
    needed |= {*wheel["force-include"], *(path.partition("/")[0] for path in wheel["packages"])}
    assert needed | {"constraints.txt"} == copied()


def test_python_fits_and_the_user_is_not_root() -> None:
    words = [word for word, _ in instructions()]
    (base,) = (rest for word, rest in instructions() if word == "FROM")
    (version,) = re.findall(r"^python:(\d+\.\d+)-slim-bookworm$", base)
    assert SpecifierSet(PROJECT["project"]["requires-python"]).contains(version)
    (user,) = (rest for word, rest in instructions() if word == "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    # Nothing is installed as that user, and nothing runs as root.
    assert words.index("USER") > max(i for i, word in enumerate(words) if word in ("RUN", "COPY"))
    assert ("ENTRYPOINT", '["lcbench"]') in instructions()

"""Models and data of unusual make-up: scored as plain mteb scores them, or refused by name."""

from pathlib import Path
from typing import Any

import mteb
import pytest
from engines import encoder_of
from odd_models import REFUSED, SCORED
from odd_tasks import TASKS, Documents, TiedPairs
from sentence_transformers import SentenceTransformer

from lcbench.encode.encoder import Encoder
from lcbench.errors import InjectionError, RequestError
from lcbench.repair.repair import Repair
from lcbench.score.evaluate import score
from lcbench.tempscale.policy import parse


def plain_scores(model: SentenceTransformer, task: Any) -> dict[str, Any]:
    """mteb's scores of a task, without lcbench."""
    outcome = mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False)
    return outcome.task_results[0].scores


def assert_equal_scores(got: dict[str, Any], expected: dict[str, Any]) -> None:
    assert list(got) == list(expected)
    compared = 0
    for split, subsets in expected.items():
        assert [one["hf_subset"] for one in got[split]] == [one["hf_subset"] for one in subsets]
        for mine, theirs in zip(got[split], subsets, strict=True):
            numbers = {
                name: value for name, value in theirs.items() if isinstance(value, int | float)
            }
            assert {name: mine[name] for name in numbers} == pytest.approx(
                numbers, abs=1e-6, nan_ok=True
            )
            compared += "main_score" in numbers
    assert compared


@pytest.mark.parametrize("name", SCORED)
def test_an_odd_model_scores_as_in_plain_mteb(
    name: str, tmp_path: Path, minilm_folder: Path
) -> None:
    folder = SCORED[name](tmp_path, minilm_folder)
    plain = SentenceTransformer(str(folder), device="cpu")
    encoder = encoder_of(folder)
    for task in (Documents, TiedPairs):
        assert_equal_scores(score(task(), encoder).result.scores, plain_scores(plain, task()))


@pytest.mark.parametrize("name", REFUSED)
def test_an_odd_model_is_refused_by_name(name: str, tmp_path: Path, minilm_folder: Path) -> None:
    make, reason = REFUSED[name]
    folder = make(tmp_path, minilm_folder)
    with pytest.raises((RequestError, InjectionError), match=reason):
        encoder_of(folder)


def test_what_has_no_attention_scores_at_the_baseline_and_is_refused_at_a_temperature(
    tmp_path: Path, minilm_folder: Path
) -> None:
    folder = SCORED["a state space, without attention"](tmp_path, minilm_folder)
    with pytest.raises(InjectionError, match="MambaModel: 0 attention layers were reached"):
        encoder_of(folder, 0.8).engine.embed(Repair(parse(0.8)), ["a text"], None, "")  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def first_token(
    tmp_path_factory: pytest.TempPathFactory, minilm_folder: Path
) -> tuple[SentenceTransformer, Encoder]:
    folder = SCORED["first token, normalised"](tmp_path_factory.mktemp("model"), minilm_folder)
    return SentenceTransformer(str(folder), device="cpu"), encoder_of(folder)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.__name__)
def test_odd_data_scores_as_in_plain_mteb(
    task: Any, first_token: tuple[SentenceTransformer, Encoder]
) -> None:
    plain, encoder = first_token
    assert_equal_scores(score(task(), encoder).result.scores, plain_scores(plain, task()))

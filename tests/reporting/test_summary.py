"""`lcbench.reporting.summary`: what was found, in words."""

import pytest

from lcbench.reporting.summary import findings, headlines


def improvement(value: float, low: float | None, high: float | None) -> dict:
    return {"value": value, "low": low, "high": high}


def model(label: str, **avg) -> dict:
    of_best = {"0.8": {"Avg": avg}}
    return {
        "label": label,
        "best": "0.8",
        "policies": ["1", "0.8"],
        "improvements": of_best,
        "scores": {},
    }


def choice(label: str, gain: float, honest: float, tau: str = "0.8") -> dict:
    return {
        "label": label,
        "tau": tau,
        "gain": gain,
        "held_out_gain": honest,
        "optimism": gain - honest,
    }


def test_the_findings_of_one_model():
    table = {
        "models": [model("MiniLM", **improvement(0.434, 0.1, 0.77))],
        "choice": {"models": [choice("MiniLM", 0.434, 0.2)]},
    }
    assert findings(table) == (
        (),
        (
            (
                "MiniLM",
                "the best is τ = 0.8: Avg +0.43 % (95 % interval +0.10 to +0.77), a significant "
                "gain. Choosing each task's τ on the other tasks gives +0.20 %, 0.23 points less "
                "than the paper's rule, which chooses on the test data.",
            ),
        ),
    )


@pytest.mark.parametrize(
    ("low", "high", "meaning"),
    [
        (
            0.1,
            0.5,
            "the best is τ = 0.8: Avg +0.20 % (95 % interval +0.10 to +0.50), a significant gain.",
        ),
        (
            *(-0.5, -0.1),
            "no τ beat the baseline; the closest is τ = 0.8: Avg +0.20 % (95 % interval −0.50 to "
            "−0.10), a significant loss.",
        ),
        (
            *(-0.1, 0.5),
            "the best is τ = 0.8: Avg +0.20 % (95 % interval −0.10 to "
            "+0.50), not significantly different from zero.",
        ),
        (
            *(0.0, 0.5),
            "the best is τ = 0.8: Avg +0.20 % (95 % interval 0.00 to "
            "+0.50), not significantly different from zero.",
        ),
        (None, None, "the best is τ = 0.8: Avg +0.20 %; how sure this is, is not known."),
    ],
)
def test_a_finding_says_whether_the_interval_excludes_zero(low, high, meaning):
    ((_, text),) = findings({"models": [model("m", **improvement(0.2, low, high))]})[1]
    assert text == meaning


def test_the_headline_names_the_best_of_the_temperatures_that_gain_significantly():
    """τ = 0.7 has the highest Avg, with noise; the gain at 0.9 is smaller and significant."""
    tried = {
        "0.9": {"Avg": improvement(0.5, 0.1, 0.9)},
        "0.8": {"Avg": improvement(0.4, 0.1, 0.7)},
        "0.7": {"Avg": improvement(0.8, -0.2, 1.8)},
        "0.6": {"Avg": None},
    }
    one = {**model("m"), "best": "0.7", "policies": ["1", *tried], "improvements": tried}
    text = "the best is τ = 0.9: Avg +0.50 % (95 % interval +0.10 to +0.90), a significant gain."
    assert headlines({"models": [one]}) == [
        {"model": "m", "verdict": "gain", "policy": "0.9", "text": text}
    ]
    baseline = {"label": "e", "best": None, "scores": {"1": {"Avg": 56.284}}}
    assert headlines({"models": [baseline]}) == [
        {
            "model": "e",
            "verdict": "unknown",
            "policy": None,
            "text": "only the baseline was measured; its Avg is 56.28.",
        }
    ]


def test_the_findings_of_several_models():
    table = {
        "models": [
            model("a", **improvement(0.5, 0.1, 0.9)),
            model("b", **improvement(-0.5, -0.9, -0.1)),
            model("c", **improvement(0.1, -0.1, 0.3)),
            model("d", **improvement(0.1, None, None)),
            {"label": "e", "best": None, "scores": {"1": {"Avg": 56.284}}},
            {**model("f"), "improvements": {"0.8": {"Avg": None}}},
        ],
        "average_improvement": {"Avg": improvement(0.05, -0.2, 0.3)},
        "choice": {"models": [choice("a", 0.5, 0.1), choice("c", 0.1, -0.1)]},
    }
    for one in table["models"]:
        one["policies"] = ["1", "0.9", "0.8"]
    sentences, models = findings(table)
    assert sentences == (
        "Over 5 models, each at its best τ, Avg changes by +0.05 % (95 % interval −0.20 to +0.30), "
        "not significantly different from zero.",
        "Of 5 models: 1 with a significant gain, 1 with a significant loss, 1 not "
        "significantly different from zero, 2 without an interval.",
        "With each task's τ chosen on the other tasks, Avg changes by 0.00 % on average over "
        "models. The paper's rule, which chooses on the test data, overstates that by 0.30 points.",
    )
    assert dict(models)["e"] == "only the baseline was measured; its Avg is 56.28."
    assert dict(models)["f"] == "Avg has missing values at τ = 0.8, so that its gain is unknown."


def test_what_an_interval_leaves_out_is_next_to_it():
    note = "the interval leaves out variation between tasks in Class (one task)"
    noted = {**improvement(0.5, 0.1, 0.9), "note": note}
    ((_, text),) = findings({"models": [model("m", **noted)]})[1]
    assert text == (
        "the best is τ = 0.8: Avg +0.50 % (95 % interval +0.10 to +0.90), a significant gain. The "
        "interval leaves out "
        "variation between tasks in Class (one task)."
    )


def test_the_papers_rule_may_choose_another_temperature_than_the_table_shows():
    """No τ is_fresh 1, which the rule may take and the table's second line may not."""
    table = {
        "models": [model("m", **improvement(-0.6, -0.9, -0.3))],
        "choice": {"models": [choice("m", 0.0, 0.0, tau="1")]},
    }
    ((_, text),) = findings(table)[1]
    assert text.endswith(
        "a significant loss. Among the constant τ, 1 included, the paper's rule takes τ = 1: "
        "0.00 %; choosing each task's τ on the other tasks gives 0.00 %."
    )


def test_the_same_gain_is_called_the_same():
    table = {
        "models": [model("m", **improvement(0.6, 0.3, 0.9))],
        "choice": {"models": [choice("m", 0.6, 0.5999)]},
    }
    ((_, text),) = findings(table)[1]
    assert "here the same as the paper's rule" in text


def test_the_papers_number_is_next_to_ours():
    of = {"model": "BAAI/bge", "revision": "f", "window": 512}
    paper = [
        {"name": "BAAI/bge", "revision": "f", "window": 512, "policy": "0.8", "paper": 0.51}
        | {"row": "relative", "column": column}
        for column in ("STS", "Avg")
    ]
    table = {"models": [{**model("BGE", **improvement(0.6, 0.3, 0.9)), **of}]}
    ((_, text),) = findings(table, paper)[1]
    assert text.endswith("a significant gain. The paper prints +0.51 % at τ = 0.8.")
    ((_, other),) = findings(table, [{**one, "revision": "e"} for one in paper])[1]
    assert "paper" not in other


def test_the_best_of_several_on_one_task_is_reported_as_chosen():
    """There is no task to choose on, and yet the best of three is a choice."""
    counted = {**improvement(11.2, 0.3, 20.0), "tried": 3}
    one = {**model("m", **counted), "policies": ["1", "0.9", "0.8", "0.7"]}
    ((_, text),) = findings({"models": [one]})[1]
    assert text == (
        "the best is τ = 0.8: Avg +11.20 % (95 % interval +0.30 to +20.00, counting the choice "
        "among 3 τ), a significant gain."
    )
    ((_, alone),) = findings({"models": [model("m", **improvement(11.2, 0.3, 20.0))]})[1]
    assert alone.endswith("+20.00), a significant gain.")


def test_what_is_not_significant_by_its_test_is_no_finding():
    """Its interval excludes zero; where few units change, that claims too much."""
    few = {**improvement(-12.9, -26.1, -2.9), "significant": False}
    ((_, text),) = findings({"models": [model("m", **few)]})[1]
    assert text.endswith("(95 % interval −26.10 to −2.90), not significantly different from zero.")


def test_repairs_that_are_not_temperatures_are_called_repairs() -> None:
    gain = {"value": 2.0, "low": 0.5, "high": 3.5, "tried": 3, "significant": True}
    loss = {"value": -2.0, "low": -3.5, "high": 0.5, "tried": 3, "significant": False}
    model = {
        "label": "m",
        "best": "0.9 + correct=centre",
        "policies": ["1", "0.9", "correct=centre", "0.9 + correct=centre"],
        "scores": {"1": {"Avg": 50.0}},
        "improvements": {"0.9": {"Avg": loss}, "0.9 + correct=centre": {"Avg": gain}},
    }
    (found,) = headlines({"models": [model]})
    assert found["text"] == (
        "the best is τ = 0.9 + centre: Avg +2.00 % (95 % interval +0.50 to +3.50, counting the "
        "choice among 3 repairs), a significant gain."
    )
    model["improvements"] = {"correct=centre": {"Avg": loss}}
    (found,) = headlines({"models": [model]})
    assert found["text"].startswith("no repair beat the baseline; the closest is centre: Avg −2.00")

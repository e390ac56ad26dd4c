"""Values by length and repair: intervals of the paper, differences within the same samples."""

from dataclasses import replace

import numpy as np
import pytest

from lcbench.errors import RequestError
from lcbench.measures.classes import Classes, drawn_for_training, predictions
from lcbench.measures.figures import FigureOptions, Material, Subject, make
from lcbench.measures.geometry import centroid_distance, mean_cosine
from lcbench.measures.intervals import (
    cosines_by_interval,
    cosines_of_repeated,
    distances_by_length,
    intervals,
    means_by_interval,
)
from lcbench.reporting.figures.paper import panels_of, sentence_of

RANDOM = np.random.default_rng(0)
LENGTHS = np.repeat([20, 99, 100, 180, 250, 399], [30, 30, 20, 40, 29, 60])
ROWS = RANDOM.standard_normal((len(LENGTHS), 12)) + 0.4
SAMPLES = 1_000


def test_intervals_are_of_100_tokens_and_small_ones_are_left_out() -> None:
    parts = intervals(LENGTHS)
    assert {name: len(part) for name, part in parts.items()} == {
        "[0, 100)": 60,
        "[100, 200)": 60,
        "[300, 400)": 60,
    }
    assert set(LENGTHS[parts["[100, 200)"]]) == {100, 180}
    assert [len(part) for part in intervals(LENGTHS, most=50, last=2).values()] == [50, 50]
    with pytest.raises(RequestError, match="do not give two intervals of 100 tokens"):
        intervals(LENGTHS[:60])
    with pytest.raises(RequestError, match="the 0 texts"):
        intervals([])


def test_cosines_are_those_of_the_texts_of_each_interval() -> None:
    parts = intervals(LENGTHS)
    nearer = ROWS + 0.3
    panel = cosines_by_interval({"a": ROWS, "b": nearer}, LENGTHS, parts, SAMPLES)
    one, other = panel.lines
    for line, rows in ((one, ROWS), (other, nearer)):
        expected = [mean_cosine(rows[part]) for part in parts.values()]
        assert [value.value for value in line.values] == pytest.approx(expected)
        assert line.change.value == pytest.approx(expected[-1] - expected[0])
    assert one.against == ()
    for low, high, difference in zip(one.values, other.values, other.against, strict=True):
        assert difference.value == pytest.approx(high.value - low.value)
        # The same texts are drawn for both, so that a difference is known better than either.
        assert difference.high - difference.low < high.high - high.low
    assert [place.texts for place in panel.places] == [60, 60, 60]
    assert panel.places[0].tokens == pytest.approx(59.5)
    factor, first = 399 / 59.5, one.values[0].value
    assert panel.averaging[-1].value == pytest.approx(factor * first / (1 + (factor - 1) * first))


def test_means_have_the_interval_of_their_texts() -> None:
    parts = intervals(LENGTHS)
    scores = RANDOM.random(len(LENGTHS))
    (line,) = means_by_interval("accuracy", {"a": scores}, LENGTHS, parts, SAMPLES).lines
    for value, part in zip(line.values, parts.values(), strict=True):
        assert value.value == pytest.approx(scores[part].mean())
        error = scores[part].std(ddof=1) / np.sqrt(len(part))
        assert value.high - value.low == pytest.approx(2 * 2.001 * error, rel=0.15)


def test_distances_are_to_the_centroid_of_each_length() -> None:
    lengths = {"short": ROWS, "whole": ROWS + 1}
    panel = distances_by_length({"a": lengths}, {"short": 9, "whole": 90}, SAMPLES)
    (line,) = panel.lines
    expected = [centroid_distance(rows) for rows in lengths.values()]
    assert [value.value for value in line.values] == pytest.approx(expected)
    assert line.change.high < 0
    assert line.values[0].low < expected[0] < line.values[0].high


def test_exact_values_have_no_interval() -> None:
    (line,) = cosines_of_repeated({"a": [0.6, 0.5]}, [1, 8]).lines
    assert line.change.value == pytest.approx(-0.1)
    assert line.change.low == line.change.high


def test_predictions_are_right_and_sure_where_classes_are_apart() -> None:
    labels = ["a", "b", "c"] * 40
    centres = {"a": [9.0, 0, 0], "b": [0, 9.0, 0], "c": [0, 0, 9.0]}
    rows = np.array([centres[label] for label in labels])
    drawn = drawn_for_training(labels, seed=1)
    assert len(drawn) == 10
    for one in drawn:
        assert sorted(labels[at] for at in one) == ["a"] * 8 + ["b"] * 8 + ["c"] * 8
        assert len(set(one)) == 24
    train = [(rows[one], [labels[at] for at in one]) for one in drawn]
    right, entropy = predictions(train, rows, labels)
    assert right.tolist() == [1.0] * 120
    assert entropy.max() < 0.1
    # Of what says nothing, all classes are as likely.
    right, entropy = predictions([(one * 0, known) for one, known in train], rows * 0, labels)
    assert right.mean() == pytest.approx(1 / 3)
    assert entropy == pytest.approx(np.log(3))


def _subject(pull: float) -> Subject:
    """A model whose repair draws texts together, the more the longer they are."""

    def embed(repair: str, texts: list[str]) -> np.ndarray:
        rows = []
        for text in texts:
            own = np.random.default_rng(len(text) + sum(map(ord, text))).standard_normal(16)
            shared = pull * min(len(text.split()) / 200, 1) * (repair == "τ = 1")
            rows.append(own / np.linalg.norm(own) + shared)
        return np.array(rows, dtype=np.float32)

    return Subject(
        ("τ = 1", "τ = 0.5"),
        embed,
        lambda texts: embed("τ = 1", texts),
        lambda texts: [len(text.split()) for text in texts],
        220,
        222,
    )


def _documents(count: int = 150) -> tuple[str, ...]:
    return tuple(
        " ".join(f"Text {place} has sentence {at} here." for at in range(3 + 30 * (place % 2)))
        for place in range(count)
    )


@pytest.mark.parametrize(("pull", "rises"), [(1.0, True), (0.0, False)])
def test_figures_show_what_a_model_does(pull: float, rises: bool) -> None:
    material = Material(_documents(), {one: one[:12] for one in _documents()}, "title")
    options = FigureOptions(resamples=SAMPLES)
    for number in ("1c", "3"):
        figure = make(number, _subject(pull), material, options)
        (panel,) = figure.panels
        assert [place.name for place in panel.places] == ["[0, 100)", "[100, 200)"]
        assert (panel.lines[0].change.low > 0) is rises
        assert len(panel.lines) == (2 if number == "1c" else 1)
    figure = make("1b", _subject(pull), material, options)
    (panel,) = figure.panels
    assert [place.name for place in panel.places] == ["title", "first sentence", "whole text"]
    assert (panel.lines[0].change.high < 0) is rises
    assert [len(one.at) for one in figure.points] == [150, 150, 150]
    assert figure == make("1b", _subject(pull), material, options)


@pytest.mark.parametrize("by_mean", [True, False])
def test_averaging_is_the_most_where_a_model_does_not_pool_by_the_mean(by_mean: bool) -> None:
    subject = replace(_subject(1.0), repairs=("τ = 1",), by_mean=by_mean)
    options = FigureOptions(resamples=SAMPLES)
    figure = make("1c", subject, Material(_documents()), options)
    words = make("3", subject, Material(_documents()), options)
    # A mean of word embeddings is a mean, whatever the model makes of its tokens.
    assert (figure.panels[0].at_most, words.panels[0].at_most) == (not by_mean, False)
    assert ("would give at most " in sentence_of(figure)) != by_mean
    assert "would give at most " not in sentence_of(words)
    (curves,) = panels_of([figure])
    most = "averaging of independent parts that count alike (the most)"
    plain = "averaging of independent parts"
    assert curves.series[0].name == (plain if by_mean else most)
    assert panels_of([words])[0].series[0].name == plain


def test_figures_of_classes_need_labels_and_figure_12_only_a_window() -> None:
    with pytest.raises(RequestError, match="there are no labels"):
        make("1a", _subject(0), Material(_documents()))
    (panel,) = make("12", _subject(0), Material(())).panels
    assert [place.name for place in panel.places] == [
        *("1", "2", "4", "8", "16", "32", "64", "128", "220")
    ]
    texts = _documents(300)
    labels = tuple("long" if place % 2 else "short" for place in range(300))
    classes = Classes(texts[:100], labels[:100], texts[100:], labels[100:])
    figure = make(
        "6", _subject(3), Material(texts, classes=classes), FigureOptions(resamples=SAMPLES)
    )
    entropy, accuracy = figure.panels
    assert [place.texts for place in accuracy.places] == [100, 100]
    # Length alone tells the classes apart, and only where it moves the embedding.
    assert accuracy.lines[0].values[0].value > 0.9
    assert accuracy.lines[1].against[0].high < 0
    assert 0 < entropy.lines[0].values[0].value < np.log(2)

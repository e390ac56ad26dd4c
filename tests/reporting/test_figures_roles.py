"""`reporting.figures.roles`: the squares are the grid's, legible, and told apart in grey."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm, to_rgb
from matplotlib.patches import Rectangle

from lcbench.reporting.figures.printed import written
from lcbench.reporting.figures.roles import roles_csv, roles_figures


@dataclass(frozen=True)
class Grid:
    label: str = "one_$x$"
    what: str = "Sci$Fact$"
    query_temperatures: Sequence[float] = (1.0, 0.8)
    document_temperatures: Sequence[float] = (1.0, 0.9, 0.5)
    values: Sequence[Sequence[float | None]] = ((0.0, 0.434, -0.001), (-2.5, None, 1.2))


def frames(axes: Axes) -> list[tuple[float, float, str]]:
    """The middle of each square with a frame or hatching, and how it is drawn."""
    return [
        (
            patch.get_x() + patch.get_width() / 2,
            patch.get_y() + patch.get_height() / 2,
            "hole" if patch.get_hatch() else patch.get_linestyle(),
        )
        for patch in axes.patches
        if isinstance(patch, Rectangle)
    ]


def test_rows_are_of_queries_and_columns_of_documents() -> None:
    (figure,) = roles_figures([Grid()])
    axes, bar = figure.axes
    (image,) = axes.get_images()
    expected = [[0.0, 0.434, -0.001], [-2.5, math.nan, 1.2]]
    np.testing.assert_array_equal(np.ma.filled(image.get_array(), math.nan), expected)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1", "0.8"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "0.9", "0.5"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("τ of documents", "τ of queries")
    assert axes.get_title() == "one_$x$\nSci$Fact$"
    assert not axes.title.get_parse_math()
    assert bar.get_ylabel() == "relative improvement (%)"
    shown = {text.get_position(): text.get_text() for text in axes.texts}
    assert shown == {(0, 0): "0", (1, 0): "+0.43", (2, 0): "0", (0, 1): "−2.50", (2, 1): "+1.20"}


def test_best_square_baseline_and_missing_value_are_marked_without_colour() -> None:
    (figure,) = roles_figures([Grid()])
    axes = figure.axes[0]
    assert sorted(frames(axes)) == [
        (pytest.approx(0.0), pytest.approx(0.0), "--"),
        (pytest.approx(1.0), pytest.approx(1.0), "hole"),
        (pytest.approx(2.0), pytest.approx(1.0), "solid"),
    ]
    bold = [text.get_text() for text in axes.texts if text.get_fontweight() == "bold"]
    assert bold == ["+1.20"]


def test_colours_are_centred_on_zero_and_ever_lighter() -> None:
    (figure,) = roles_figures([Grid()])
    (image,) = figure.axes[0].get_images()
    assert (image.norm.vmin, image.norm.vmax) == (-2.5, 2.5)
    assert image.norm(0.0) == pytest.approx(0.5)
    greys = [
        np.dot(image.cmap(image.norm(value))[:3], (0.299, 0.587, 0.114))
        for value in np.linspace(-2.5, 2.5, 41)
    ]
    assert (np.diff(greys) > 0).all()
    red, green, blue = image.cmap(image.norm(0.0))[:3]
    assert max(red, green, blue) - min(red, green, blue) < 0.02


def test_numbers_are_legible_on_every_colour() -> None:
    values = np.linspace(-9, 9, 49).reshape(7, 7)
    taus = tuple(np.linspace(1, 0.4, 7))
    (figure,) = roles_figures([Grid("m", "t", taus, taus, values.tolist())])
    axes = figure.axes[0]
    (image,) = axes.get_images()

    def luminance(colour: Sequence[float]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    for text in axes.texts:
        column, row = text.get_position()
        ink, ground = (
            luminance(colour)
            for colour in (to_rgb(text.get_color()), image.cmap(image.norm(values[row, column])))
        )
        # WCAG 2, level AA.
        assert (max(ink, ground) + 0.05) / (min(ink, ground) + 0.05) > 4.5


def test_numbers_stay_within_their_squares_and_titles_within_the_figure() -> None:
    values = [[-99.94, 1234.5, -0.05], [99.96, -9.996, 9.994]]
    (figure,) = roles_figures([Grid(values=values)] * 4)
    figure.canvas.draw()
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert shown == ["−99.9", "+1234", "−0.05", "+100", "−10.0", "+9.99"]
    width, height = figure.canvas.get_width_height()
    for axes in figure.axes[:-1]:
        square = abs(np.diff(axes.transData.transform([(0, 0), (1, 0)]), axis=0)[0, 0])
        assert all(text.get_window_extent().width < square for text in axes.texts)
        box = axes.get_tightbbox()
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height


def test_a_fall_by_much_leaves_small_gains_visible_on_one_scale() -> None:
    (figure,) = roles_figures([Grid(), Grid(values=((0.0, 1.0, 2.0), (-60.0, 0.0, 0.0)))])
    norms = [axes.get_images()[0].norm for axes in figure.axes[:2]]
    assert norms[0] is norms[1]
    assert isinstance(norms[0], SymLogNorm)
    assert norms[0](0.0) == pytest.approx(0.5)
    assert norms[0](1.0) > 0.6
    assert "logarithmic beyond ± 1" in figure.axes[-1].get_ylabel()


def test_nine_panels_a_page_and_no_more_than_there_are() -> None:
    pages = roles_figures([Grid(label=str(number)) for number in range(10)])
    titles = [[axes.get_title() for axes in page.axes if axes.get_images()] for page in pages]
    assert [len(page) for page in titles] == [5, 5]
    expected = [f"{number}\nSci$Fact$" for number in range(10)]
    assert [title for page in titles for title in page] == expected


def test_files_are_reproducible_and_only_of_what_is_known(tmp_path: Path) -> None:
    holes = Grid(values=((None,) * 3,) * 2)
    assert (
        written(partial(roles_figures, []), tmp_path / "none")
        == written(partial(roles_figures, [holes]), tmp_path / "none")
        == []
    )
    assert list(tmp_path.iterdir()) == []
    grids = [holes, *[Grid(label=str(number)) for number in range(10)]]
    first = written(partial(roles_figures, grids), tmp_path / "new" / "roles")
    names = ["roles.png", "roles.svg", "roles-2.png", "roles-2.svg"]
    assert [path.name for path in first] == names
    second = written(partial(roles_figures, grids), tmp_path / "again")
    assert [path.read_bytes() for path in second] == [path.read_bytes() for path in first]
    assert first[0].read_bytes() != first[2].read_bytes()


def test_csv_has_every_square() -> None:
    assert roles_csv([Grid(label='a,"b"')]).splitlines() == [
        "model,what,query_tau,document_tau,improvement",
        '"a,""b""",Sci$Fact$,1.0,1.0,0.0',
        '"a,""b""",Sci$Fact$,1.0,0.9,0.434',
        '"a,""b""",Sci$Fact$,1.0,0.5,-0.001',
        '"a,""b""",Sci$Fact$,0.8,1.0,-2.5',
        '"a,""b""",Sci$Fact$,0.8,0.9,',
        '"a,""b""",Sci$Fact$,0.8,0.5,1.2',
    ]


def test_a_gain_is_blue_and_a_loss_orange() -> None:
    (figure,) = roles_figures([Grid()])
    (image,) = figure.axes[0].get_images()
    (loss_red, _, loss_blue, _), (gain_red, _, gain_blue, _) = (
        image.cmap(image.norm(value)) for value in (-2.5, 2.5)
    )
    assert loss_red > loss_blue
    assert gain_blue > gain_red


def test_titles_of_neighbours_do_not_overlap() -> None:
    """Long names over narrow grids: two τ a side, beside one another."""
    long = "all-MiniLM-L6-v2-fine-tuned on everything there is, bias kept"
    tasks = ("DocstringLongRetrieval", "DocstringReranking", "LEMBSummScreenFDRetrieval")
    taus, values = (1.0, 0.8), ((0.0, 0.1), (0.2, 0.3))
    (figure,) = roles_figures([Grid(long, task, taus, taus, values) for task in tasks])
    figure.canvas.draw()
    boxes = [axes.title.get_window_extent() for axes in figure.axes if axes.get_title()]
    assert len(boxes) == 3
    for left, right in pairwise(boxes):
        assert left.x1 < right.x0
    assert boxes[0].x0 >= 0
    titles = ["".join(axes.get_title().split()) for axes in figure.axes[:3]]
    assert titles == ["".join(f"{long}{task}".split()) for task in tasks]

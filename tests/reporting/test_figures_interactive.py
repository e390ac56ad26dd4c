"""`reporting.figures.interactive`: charts are plotly's, and their numbers the tables'."""

import json

import numpy as np
import pytest
from report_documents import Grid, document
from test_figures import SCORES, tables_of

from lcbench.reporting.figures import interactive
from lcbench.reporting.figures.improvement import (
    by_column,
    by_model,
    drawn_columns,
    improvement_csv,
)
from lcbench.reporting.figures.panels import (
    COLOURS,
    DARK_COLOURS,
    HEAT,
    Forest,
    HeatScale,
    Line,
    Mark,
    Scatter,
)
from lcbench.reporting.statistics import TableStatistics, Uncertainty

MEANS = {
    ("one_$x$", "0.9", "Class"): Uncertainty(0.5, 3.5),
    ("one_$x$", "0.5", "Class"): Uncertainty(-9.0, 0.5),
    ("one_$x$", "1.2", "Class"): Uncertainty(-20.0, -0.5),
}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_plotly_takes_every_view(theme: str) -> None:
    from plotly.graph_objects import Figure

    report = document()["figures"]
    text = json.dumps(report["views"])
    for light, dark in interactive.DARK.items():
        text = text.replace(light, dark) if theme == "dark" else text
    views = json.loads(text)
    # Nine columns and five models; Avg and five models; five models twice; a heat map.
    assert len(views) == 9 + 5 + 6 + 10 + 1
    for view in views:
        # Raises where a name or a value is none of plotly's.
        figure = Figure(view["data"], {**view["layout"], "template": report["template"]})
        assert len(figure.data) == len(view["data"]) > 0


def test_charts_have_a_view_for_each_choice() -> None:
    report = document()["figures"]
    charts = [*report["tables"][0], report["by_length"], *report["heat"]]
    ends = []
    for chart in charts:
        options = [
            sum(len(one["options"]) if isinstance(one, dict) else 1 for one in picker["options"])
            for picker in chart["pickers"]
        ]
        ends.append(chart["first"] + int(np.prod(options)))
    assert [chart["first"] for chart in charts] == [0, *ends[:-1]]
    assert ends[-1] == len(report["views"])


def test_points_are_the_tables_and_hollow_where_not_significant() -> None:
    (table,) = tables_of(SCORES)
    statistics = TableStatistics({}, MEANS, {})
    panel = by_model(table, table.blocks[0], statistics, drawn_columns([table], [statistics]))
    assert panel is not None

    view = interactive.curves_view(panel)

    trace = view["data"][0]
    # The places on the axis are of the logarithm beyond 1 %.
    values = [-2.0, 0.0, 2.0, -4.0]
    places = [np.sign(value) * (1 + np.log10(abs(value))) if value else 0 for value in values]
    assert trace["y"] == pytest.approx(places)
    assert trace["marker"]["symbol"] == ["circle", "circle", "circle", "circle-open"]
    assert trace["text"] == [
        "τ = 1.2<br>−2.00 %, 95 % interval −20.00 to −0.50 %",
        "τ = 1<br>0",
        "τ = 0.9<br>+2.00 %, 95 % interval +0.50 to +3.50 %",
        "τ = 0.5<br>−4.00 %, 95 % interval −9.00 to +0.50 %",
    ]
    assert trace["error_y"]["array"][2] == pytest.approx(np.log10(3.5 / 2), abs=1e-6)
    # What is not known has a cross; Avg is thick and of no colour.
    assert view["data"][1]["marker"]["symbol"][0] == "x-thin-open"
    assert view["data"][2]["line"]["width"] == 3
    assert view["data"][2]["line"]["color"] not in COLOURS
    rows = improvement_csv([table], [statistics]).splitlines()[1:]
    shown = [["" if one is None else repr(one) for one in row[2:]] for row in view["rows"]]
    assert shown == [row.split(",")[-3:] for row in rows[: len(shown)]]
    assert view["columns"] == ["series", "at", "improvement", "low", "high"]
    assert view["of"] == "one_$x$"


def test_a_column_has_a_line_for_each_model() -> None:
    (table,) = tables_of(SCORES)
    panel = by_column(table, "Class", TableStatistics({}, {}, {}))
    assert panel is not None
    view = interactive.curves_view(panel)
    assert [trace["name"] for trace in view["data"]] == ["one_$x$", "two"]
    assert view["data"][1]["y"] == pytest.approx([0.0, 5.0])
    # Side by side by a hair.
    assert view["data"][0]["x"][1] == pytest.approx(1 + 0.0014)
    assert view["layout"]["xaxis"]["autorange"] == "reversed"


def test_the_forest_is_grouped_by_what_is_known() -> None:
    lines = (
        Line("task", "a<b>", 2.0, (0.5, 3.5), True, "STS"),
        Line("task", "b", None, None),
        Line("column", "STS", -1.0, (-2.0, -0.5), True),
        Line("average", "Avg", 0.2, (-1.0, 1.5), False),
        Line("task", "c", 0.1, None),
    )
    view = interactive.forest_view(Forest("m", lines))
    looks = [
        (trace["name"], trace["x"], trace["y"], trace["marker"]["symbol"]) for trace in view["data"]
    ]
    assert looks == [
        ("gain, significant", [2.0], [0], ["circle"]),
        ("loss, significant", [-1.0], [1], ["diamond"]),
        ("not significant", [0.2], [2], ["square-open"]),
        ("interval unknown", [0.1], [3], ["x-thin-open"]),
    ]
    assert view["layout"]["yaxis"]["ticktext"] == ["a&lt;b&gt;", "STS (mean)", "Avg", "c"]
    assert view["rows"] == [
        ["a<b>", "STS", 2.0, 0.5, 3.5],
        ["STS (mean)", "", -1.0, -2.0, -0.5],
        ["Avg", "", 0.2, -1.0, 1.5],
        ["c", "", 0.1, None, None],
    ]
    assert view["data"][0]["error_x"]["array"] == [1.5]


def test_all_heat_maps_have_one_scale() -> None:
    grids = [Grid(values=[[0.0, 3.0], [-100.0, None]]), Grid(values=[[0.0, 1.0], [0.5, -0.25]])]
    scale = HeatScale.of(grids)
    (first,), (second,) = (interactive.heat_view(grid, scale)["data"] for grid in grids)
    for trace in (first, second):
        assert (trace["zmin"], trace["zmax"]) == (-3, 3)
        assert [colour for _, colour in trace["colorscale"]] == list(HEAT)
        assert trace["colorbar"]["ticktext"][0] == "−100 %"
    assert second["z"] == [[0.0, 1.0], [0.5, -0.25]]
    assert first["text"] == [["0.00", "+3.00"], ["−100.00", "–"]]
    assert "The same colour scale in all, logarithmic beyond ± 1." in interactive.heat_note(scale)
    rows = interactive.heat_view(grids[0], scale)["rows"]
    assert rows == [[1.0, 1.0, 0.0], [1.0, 0.8, 3.0], [0.8, 1.0, -100.0], [0.8, 0.8, None]]


# Machado, Oliveira and Fernandes (2009), severity 1; the last is normal sight.
SIGHTS = {
    "protanope": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranope": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanope": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
    "normal": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
}


def linear_light(colour: str) -> np.ndarray:
    parts = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def lab(light: np.ndarray) -> np.ndarray:
    """CIELAB of linear sRGB."""
    xyz = (
        np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
        @ light
        / (0.9505, 1, 1.089)
    )
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize(
    ("colours", "ink", "ground"),
    [(COLOURS, "#000000", "#ffffff"), (DARK_COLOURS, "#e6e7ea", "#14161a")],
    ids=["light", "dark"],
)
def test_every_kind_of_eye_tells_the_colours_apart(
    sight: str, colours: tuple[str, ...], ink: str, ground: str
) -> None:
    seen = [
        lab(np.clip(np.array(SIGHTS[sight]) @ linear_light(colour), 0, 1))
        for colour in (*colours, ink)
    ]
    distances = [
        float(np.linalg.norm(one - other)) for at, one in enumerate(seen) for other in seen[:at]
    ]
    assert min(distances) > 20
    luminances = [float(linear_light(one) @ (0.2126, 0.7152, 0.0722)) for one in (*colours, ground)]
    *those, of_ground = luminances
    for luminance in those:
        lighter, darker = max(luminance, of_ground), min(luminance, of_ground)
        # WCAG 2.1 for graphics.
        assert (lighter + 0.05) / (darker + 0.05) >= 3


def test_repairs_are_points_with_the_intervals_of_both_improvements() -> None:
    from plotly.graph_objects import Figure

    marks = (
        Mark("τ = 0.9", -0.5, 1.5, (-1.0, 0.25), (0.5, 2.5)),
        Mark("a<b>", 0.1, -0.2, None, (-1.0, 1.0)),
    )
    view = interactive.scatter_view(Scatter("m", marks, "Short texts", "Long texts"))
    Figure(view["data"], {**view["layout"], "template": interactive.TEMPLATE})
    tau, other = view["data"]
    assert (tau["x"], tau["y"]) == ([-0.5], [1.5])
    assert (tau["error_x"]["arrayminus"], tau["error_x"]["array"]) == ([0.5], [0.75])
    assert (tau["error_y"]["arrayminus"], tau["error_y"]["array"]) == ([1.0], [1.0])
    assert (tau["marker"]["symbol"], other["marker"]["symbol"]) == (["circle"], ["square-open"])
    assert tau["text"] == [
        "Short texts<br>−0.50 %, 95 % interval −1.00 to +0.25 %<br>"
        "Long texts<br>+1.50 %, 95 % interval +0.50 to +2.50 %"
    ]
    assert other["name"] == "a&lt;b&gt;"
    assert view["layout"]["xaxis"]["title"]["text"].startswith("Short texts: relative improvement")
    assert dict(zip(view["columns"], view["rows"][0], strict=True)) == {
        **{"repair": "τ = 0.9", "short": -0.5, "short low": -1.0, "short high": 0.25},
        **{"long": 1.5, "low": 0.5, "high": 2.5},
    }

"""The report's figures: as PNG and SVG with their data as CSV, and as charts of the page.

A module a figure says what it shows (`panels`); `printed` draws it with matplotlib, `interactive`
describes it to plotly.
"""

from lcbench.reporting.figures.by_length import by_length_csv, by_length_figures, plot_by_length
from lcbench.reporting.figures.forest import forest_csv, forest_figures, plot_forest
from lcbench.reporting.figures.improvement import (
    Series,
    improvement_csv,
    improvement_figure,
    improvement_series,
    plot_improvement,
)
from lcbench.reporting.figures.roles import plot_roles, roles_csv, roles_figures

__all__ = [
    "Series",
    "by_length_csv",
    "by_length_figures",
    "forest_csv",
    "forest_figures",
    "improvement_csv",
    "improvement_figure",
    "improvement_series",
    "plot_by_length",
    "plot_forest",
    "plot_improvement",
    "plot_roles",
    "roles_csv",
    "roles_figures",
]

"""The report's figures: as PNG and SVG with their data as CSV, and as charts of the page.

A module a figure says what it shows (`panels`); `printed` draws it with matplotlib, `interactive`
describes it to plotly.
"""

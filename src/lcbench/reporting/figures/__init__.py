"""The report's figures: as PNG and SVG with their data as CSV, and as charts of the page.

Each figure has a module that returns its `panels`; `printed` draws panels with matplotlib,
`interactive` converts them to charts for plotly.
"""

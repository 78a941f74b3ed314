"""Renderers of results: the terminal, files (JSON, Parquet, SVG) and one HTML page.

Import the module that is wanted: `vlmlens.report.terminal`, `.files` or `.html`. None of them
imports rich, pyarrow or matplotlib before it needs them.
"""

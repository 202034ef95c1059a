"""The benchmarks. ``make bench`` runs all but ``engines.py``, and ``docs/measurements.md`` contains their results.

``measuring.py`` has what they share. Each other module is one benchmark, and prints a Markdown table.
"""

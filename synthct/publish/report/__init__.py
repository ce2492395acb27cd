"""One self-contained HTML page of a finished dataset: its samples, measures and evaluation.

A page holds everything itself and fetches nothing; whatever comes from a dataset is text in it.
"""

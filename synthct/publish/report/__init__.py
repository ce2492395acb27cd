"""One self-contained HTML page of a finished dataset: its samples, measures and evaluation.

The page loads nothing from elsewhere, and all text from the dataset is escaped.
"""

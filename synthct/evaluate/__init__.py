"""Evaluation of a finished dataset as a whole, against real scans and control arms.

Reads datasets and scans, never a model that paints.
"""

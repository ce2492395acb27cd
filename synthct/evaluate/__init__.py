"""A finished dataset measured as a whole: against real scans, control arms and real-against-real.

Reads datasets and scans, never a model that paints.
"""

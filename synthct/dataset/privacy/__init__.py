"""What a privacy check found, as it lies beside a dataset: its results and their words."""

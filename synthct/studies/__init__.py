"""What runs builds, trainings and evaluations to find something out."""

"""The recipe: one YAML file, its sections, and the plan of samples that follows from it."""

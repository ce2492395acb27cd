"""From a recipe to a dataset: plan, prepare, paint, finish, write; over one process or many."""

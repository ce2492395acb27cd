"""Whether a painted dataset, or the checkpoint behind it, shows patients of the training."""

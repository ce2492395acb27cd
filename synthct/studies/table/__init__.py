"""``synthct table``: methods compared on equal masks, as in the thesis's tables."""

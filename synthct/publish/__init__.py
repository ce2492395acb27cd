"""What leaves the house: the Hub, plain files, a page to look at."""

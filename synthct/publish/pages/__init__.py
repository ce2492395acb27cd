"""What pages for looking at pictures share: their style, and a server for this machine alone."""

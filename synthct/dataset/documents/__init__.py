"""The documents beside the shards: card, attribution, Croissant, statement, contact sheet."""

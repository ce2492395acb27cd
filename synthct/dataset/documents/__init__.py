"""The documents beside the shards: card, attribution, Croissant, contact sheet."""

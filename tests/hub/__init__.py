"""The Hub of the tests: a small real one, on loopback."""

"""Whole files and folders, locks, caches, and files from the Hub: what survives a crash."""

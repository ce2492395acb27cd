"""Tests that users can run on their own machines and disks: ``synthct selftest``."""

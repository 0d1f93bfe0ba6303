"""Decisions: pure functions on frozen values. No clock, no database, no network, no files."""

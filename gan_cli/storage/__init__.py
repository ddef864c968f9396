"""Bytes and dictionaries: a run's directory, checkpoints, records, caches; nothing about experiments."""

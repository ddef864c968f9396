"""Storage of runs on disk (checkpoints, metrics and records), and a cache of computed arrays."""

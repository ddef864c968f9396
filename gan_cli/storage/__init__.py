"""Storage on disk: the directory, checkpoints, metrics and record of a run, and a cache of computed arrays."""

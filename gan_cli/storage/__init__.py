"""Storage of a run on disk (checkpoints, metrics and ``run.json``), and a cache of computed arrays."""

"""Files of a run: its directory, checkpoints, records and metrics, and a cache of computed arrays."""

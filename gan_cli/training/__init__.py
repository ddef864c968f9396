"""The run loop, and what records, watches and stops a run."""

"""The training loop, and the parts that record, monitor and stop a run."""

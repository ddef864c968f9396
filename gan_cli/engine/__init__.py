"""The training state, and the compiled steps that advance it."""

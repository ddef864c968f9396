"""The training state, and the compiled programs that advance it by many steps per call."""

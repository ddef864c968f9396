"""Series: files of time steps, their windows, and the feature that networks see."""

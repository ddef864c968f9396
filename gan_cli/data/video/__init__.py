"""Video: the feature of clips, and clips that are read from files."""

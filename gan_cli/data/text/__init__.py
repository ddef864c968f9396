"""Text as sequences of tokens: the feature, files, and the oracle of SeqGAN's synthetic task."""

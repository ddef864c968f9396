"""What is done with a trained run: restoring, sampling, evaluating, looking inside, exporting."""

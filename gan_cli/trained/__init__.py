"""Operations on trained runs: restoring, sampling, evaluation, inspection and export."""

"""Modules that train a run, record it, monitor it and stop it."""

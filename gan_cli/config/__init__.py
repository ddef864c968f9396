"""Configurations: composes, checks and builds them, and reads them from the directories of runs."""

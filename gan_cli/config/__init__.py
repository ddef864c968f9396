"""Composes and checks configurations, builds experiments from them, and reads stored configurations."""

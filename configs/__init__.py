"""The Hydra configuration groups, importable as ``gan_cli.configs`` so that they ship inside the wheel."""

"""Entry point of ``python -m gan_cli``, which runs ``gan-train``."""

import sys

from gan_cli.cli.train import main

if __name__ == "__main__":
    sys.exit(main())

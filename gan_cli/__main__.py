"""Entry point of ``python -m gan_cli``, which runs ``gan-train``."""

import sys

# Python puts the working folder first, so a file such as random.py there would replace a module of the standard
# library. The command gan-train looks the folder up last, for the modules that the user names.
if not sys.flags.safe_path:
    sys.path.append(sys.path.pop(0))

from gan_cli.cli.train import main

if __name__ == "__main__":
    sys.exit(main())

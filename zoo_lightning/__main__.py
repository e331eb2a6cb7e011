"""Entry point of ``python -m zoo_lightning``."""

import sys

from zoo_lightning.cli.program import main

if __name__ == "__main__":
    sys.exit(main())

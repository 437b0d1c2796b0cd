"""``python -m oxidet`` is the command ``oxidet``."""

from __future__ import annotations

import sys

from oxidet.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""``python -m psync`` is the ``psync`` command."""

from __future__ import annotations

import sys

from psync.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

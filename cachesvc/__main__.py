"""`python -m cachesvc`."""

import sys

from cachesvc.cli import main

if __name__ == "__main__":
    sys.exit(main())

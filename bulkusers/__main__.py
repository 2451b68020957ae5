"""`python -m bulkusers`, and the `bulkusers` command."""

import sys

from bulkusers.cli.app import main

if __name__ == "__main__":
    sys.exit(main())

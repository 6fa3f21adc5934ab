"""`python -m statsapi COMMAND` is `statsapi COMMAND`."""

import sys

from statsapi.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

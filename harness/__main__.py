"""`python -m harness` is `lossbench`."""

import sys

from harness.cli import main

sys.exit(main())

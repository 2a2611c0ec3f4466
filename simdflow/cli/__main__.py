"""`python -m simdflow.cli` is the command `simdflow`."""

import sys

from . import main

sys.exit(main())

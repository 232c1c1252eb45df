"""`python -m cpufw`."""

import sys

from cpufw.cli import main

sys.exit(main())

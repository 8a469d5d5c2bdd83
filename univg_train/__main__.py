"""``python -m univg_train`` is ``univg-train``."""

import sys

from univg_train.cli import main

sys.exit(main())

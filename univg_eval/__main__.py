"""``python -m univg_eval`` is ``univg``."""

import sys

from univg_eval.cli import main

sys.exit(main())

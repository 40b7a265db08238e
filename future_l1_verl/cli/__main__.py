"""``python -m future_l1_verl.cli`` does the same as ``future-l1``."""

import sys

from future_l1_verl.cli import main

sys.exit(main())

"""``python -m future_l1_verl.rl`` does the same as ``future-l1 rl``."""

import sys

from future_l1_verl.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "rl")
    sys.exit(main())

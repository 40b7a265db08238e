"""``python -m future_l1_verl.rewards.judge --check URL`` does the same as ``future-l1 judge``."""

import sys

from future_l1_verl.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "judge")
    sys.exit(main())

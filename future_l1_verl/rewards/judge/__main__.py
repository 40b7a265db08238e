"""``python -m future_l1_verl.rewards.judge --check URL``: see check.py."""

import sys

from future_l1_verl.rewards.judge.check import main

if __name__ == "__main__":
    sys.exit(main())

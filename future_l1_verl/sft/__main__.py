"""``python -m future_l1_verl.sft`` does the same as ``future-l1 sft``."""

import sys

from future_l1_verl.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "sft")
    sys.exit(main())

"""``python -m future_l1_verl.evaluation run|compare|aggregate|inspect`` does the same as ``future-l1 eval``."""

import sys

from future_l1_verl.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "eval")
    sys.exit(main())

"""``python -m data_prep.curation read|score|select|recheck|build|estimate`` does the same as ``future-l1 curate``."""

import sys

from future_l1_verl.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "curate")
    sys.exit(main())

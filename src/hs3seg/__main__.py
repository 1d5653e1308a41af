"""`python -m hs3seg`, which is also how `torchrun -m hs3seg run CONFIG` starts several processes."""

import sys

from hs3seg.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m ov_assets.demo`. Its own file, so that worker processes do not import Dagster."""

import sys

from ov_assets.demo import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

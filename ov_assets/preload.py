"""What the fork server loads once, so that every step starts with the definitions in memory."""

import matplotlib.figure  # noqa: F401  # every step draws

from ov_assets.definitions import defs

LOADED = defs()

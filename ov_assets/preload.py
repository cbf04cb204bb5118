"""What the fork server loads once, so that every step starts with the definitions in memory."""

from ov_assets.definitions import defs

LOADED = defs()

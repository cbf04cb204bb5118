"""Reading what an H.264 stream codes for the luma of a picture, without reconstructing it.

numba's cache does not see that a function compiled into another file's has changed: after changing one of these files
remove `__pycache__/*.nb*` here (`make clean` does).
"""

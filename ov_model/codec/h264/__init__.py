"""Reading what an H.264 stream codes for the luma of a picture, without reconstructing it."""

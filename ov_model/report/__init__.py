"""`ov report LAKE`: one HTML page about a lake that needs nothing else to be read."""

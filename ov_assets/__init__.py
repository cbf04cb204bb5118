"""The lake as Dagster assets: what depends on what, when and where. The library, `ov_model`, says how."""

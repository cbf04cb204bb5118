"""One folder per dataset or mixture, each with a `defs.yaml`; the executor is in `resources.py`."""

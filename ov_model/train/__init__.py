"""Training: data, recipes, the trainer and its launcher, export.

`recipe` says what is trained and how, `index`, `data` and `sampler` feed it, `run` is one rank, `launch` starts and
guards all of them, `export` writes what `from_pretrained` loads. Recipes are read without PyTorch.
"""

"""`python -m foreloom`, and so `torchrun ... -m foreloom train recipe.yaml`."""

from foreloom.cli import main

main()

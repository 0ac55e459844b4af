"""What a recipe would take of many GPUs, before any of it is spent."""

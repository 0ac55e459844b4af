"""How a verb is started on many devices: text for torchrun, Open MPI and SLURM, made from one specification."""

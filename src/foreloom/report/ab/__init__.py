"""`foreloom report ab`: two recipes trained on the same data from several seeds, and how sure their difference is."""

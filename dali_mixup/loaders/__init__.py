"""Where batches come from and go to: DALI's iterators, any other loader, DALI's pipelines."""

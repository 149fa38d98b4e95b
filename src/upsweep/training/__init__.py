"""How a generator is trained and judged: the LightningModule, its callbacks, and the job that joins them."""

"""What `train.sync` is made of: sources, the comparison with a server, what a round writes, its state and its metrics."""

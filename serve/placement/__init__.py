"""Where `python -m serve` runs the graph on this machine: in one process (`process`), or on a Ray of its own (`local_ray`)."""

"""What a sync costs: a catalogue of generated rows in SQLite, of which some have changed, against a server of its own.

    python -m bench.sync --rows 20000 --changed 0.01

A server in one process starts with an index of the rows (with hashed vectors in place of a model's, or the real embedder with `--real`).
Then rows are changed, and `train.sync` runs: compared as a whole, and followed by a cursor. Prints seconds by stage and round.
"""

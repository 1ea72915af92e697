"""Matinee: semantic recommendations on small models. The domain; imports neither Ray nor FastAPI."""

import os

# Read once, when the models' libraries are loaded: a thread that waits sleeps. Spinning, an ingest on busy cores took three times the CPU.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

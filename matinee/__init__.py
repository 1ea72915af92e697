"""Matinee: semantic recommendations on small models. The domain; imports neither Ray nor FastAPI."""

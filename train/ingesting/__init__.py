"""Ingest on a Ray cluster: which engine a run takes, and Ray Data's pipeline over the stages of `matinee.index.points`."""

"""What the jobs share: output folders and manifests, Ray Train, checkpoints."""

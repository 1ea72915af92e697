"""Ray Serve deployments: thin shells around the domain."""

"""The graph: the Ray Serve deployments, the messages between them, and the gateway's logic."""

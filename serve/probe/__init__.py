"""The recall probe: asks a running server as a client does, and exports what it measures."""

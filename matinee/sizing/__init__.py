"""How large an installation has to be, from measured curves (`curves.yaml`). Does not look at a machine or a cluster."""

"""A catalogue: a file or a data set of the hub becomes clean items, and a report of what could not be read."""

"""Settings: what a user can set, its defaults and limits, and where the values come from."""

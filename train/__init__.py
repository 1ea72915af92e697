"""Jobs: each file is one, and its docstring is its command."""

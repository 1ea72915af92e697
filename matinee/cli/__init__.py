"""The command line `matinee`: one module for each group of commands."""

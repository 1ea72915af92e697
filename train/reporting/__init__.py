"""What the evaluation reports: measurements, tables, curves, HTML and Markdown."""

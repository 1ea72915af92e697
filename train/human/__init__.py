"""Human ratings: blinded sheets, the page to fill them in, agreement, and the report."""

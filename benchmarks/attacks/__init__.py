"""Attacks on vlmlens: bounded, seeded scripts that print a table and exit 0 if all is well."""

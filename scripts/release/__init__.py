"""Releases: versions in step, and all distributions built and checked. See CONTRIBUTING.md."""

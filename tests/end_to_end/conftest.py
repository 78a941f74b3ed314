"""Fixtures of the end-to-end tests."""

from tests._browser import browser

__all__ = ["browser"]

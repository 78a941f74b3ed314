"""Carrying columns from one place to another: between stores, to files, and back.

Everything streams: a few MiB of one column at a time. Targets that exist are refused.
"""

from vlmlens.transfer._carry import FORMATS, Origin, bring, carry, check_all, origin_of
from vlmlens.transfer._parts import parts_of as stored_parts

__all__ = ["FORMATS", "Origin", "bring", "carry", "check_all", "origin_of", "stored_parts"]

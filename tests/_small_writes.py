"""The program, storing rows after 32 instead of 256: little work has a middle to be ended in."""

CODE = """
import sys
from vlmlens.cli import main
from vlmlens.extraction import write_buffer
write_buffer._ROWS = 32
sys.exit(main())
"""

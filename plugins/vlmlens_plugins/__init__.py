"""The plugins that ship with vlmlens."""

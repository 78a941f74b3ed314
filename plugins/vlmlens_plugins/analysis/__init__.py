"""The built-in analyses: linear probes, the logit lens, and the blind test."""

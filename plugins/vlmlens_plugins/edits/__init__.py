"""Interventions: what edits do to rows of activations."""

"""Datasets: a folder of images, tables of samples, and what the package `datasets` loads."""

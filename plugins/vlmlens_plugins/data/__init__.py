"""Datasets: a folder of images, and tables of samples."""

"""The generic adapter: any checkpoint of transformers' image-text-to-text classes."""

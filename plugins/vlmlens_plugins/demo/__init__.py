"""The embedded demo: a scene generator, its questions and a tiny trained LLaVA."""

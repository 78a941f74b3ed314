"""Sparse autoencoders of a model's columns: trained, judged beside controls, looked at, tried out.

- `analysis.py`: the steps in order; `options.py`: what can be chosen;
- `held.py`: which samples are learnt from, which are judged, and what their rows are;
- `peaks.py`: one pass over samples: what each feature does, sample by sample;
- `judging/`: one module per measure; a new measure is a module there;
- `pages/`: what is shown of a single feature;
- `effects/`: what a feature does to the answers;
- `report.py`, `tables.py`, `figures.py`: the result.
"""

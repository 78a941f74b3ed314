"""Sparse autoencoders of a model's columns: trained, judged beside controls, looked at, tried out.

- `analysis.py`: the checks, and the result; `options.py`: what can be chosen;
- `places.py`, `sources.py`: which columns, and where their rows come from;
- `settings.py`, `making.py`: which SAEs, trained or read from files;
- `reading.py`: the steps at each place;
- `held.py`: which samples are learnt from, which are judged, and what their rows are;
- `peaks.py`: one pass over samples: what each feature does, sample by sample;
- `judging/`: one module per measure; a new measure is a module there;
- `pages/`: what is shown of a single feature;
- `effects/`: what a feature does to the answers;
- `report.py`: the result in sentences.
"""

from vlmlens_plugins.analysis.sae.analysis import SaeAnalysis

__all__ = ["SaeAnalysis"]

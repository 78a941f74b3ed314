"""Tuning and measuring again: what the analyses `tune` and `bottleneck` share.

- `dividing.py`: which samples are learned from, held out, and tested;
- `shuffling.py`: the control: the same samples with labels that say nothing;
- `measuring.py`: how often answers are right, with the image and blind;
- `gains.py`: what has changed, with intervals over groups.
"""

"""Training one part of a model: the parts, the loss, the loop, and what it costs.

The analyses `tune` and `bottleneck` use this package; it uses neither.

- `part.py`: what can be trained; `parts/`: one module per kind (weights, LoRA, virtual tokens);
- `recipe.py`: how it is trained;
- `loss.py`: what is minimised: the negative log-probability of the answer's tokens;
- `fit.py`: the loop; `checkpoint.py`: its state in a file, from which it goes on.
"""

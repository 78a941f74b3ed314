"""Training one part of a model: the parts, the loss, the loop, and what it costs.

The analyses `tune` and `bottleneck` use this package; it uses neither.

- `part.py`: what can be trained; `parts/`: one module per kind (weights, LoRA, virtual tokens);
- `recipe.py`: how it is trained;
- `making.py`: which part is meant, from a component and a method;
- `fit.py`: the loop, which minimises `vlmlens.passes.answer_loss`; `curve.py`: what it gives;
- `micro_batches.py`: what goes through the model together, and what is kept of it;
- `checkpoint.py`: the loop's state in a file, from which it goes on.
"""

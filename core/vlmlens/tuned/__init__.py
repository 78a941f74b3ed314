"""What was tuned of a model: its components, the files that hold it, and putting it in.

Three kinds: LoRA in the format of peft (`lora`), whole weights of a component (`weights`), and
virtual tokens of the prompt (`prompt`). Training is a plugin's; here is what every command needs to
use the outcome. It uses adapters through their interface, and runs where the outcome is a run's.
A new kind is a module here, and an entry of `KINDS` in `record.py`.
"""

"""Online learning: each night whose labels have arrived updates the model, in the order of the partitions.

The model after a night is a function of the model before it and of that night's rows, so the models form a chain:

- `chain` decides which nights are learned next, and from which model on when an earlier night has changed (pure);
- `learn` reads the rows, updates, compares on held-out rows, registers, and moves the champion.

How one framework's model learns is in `scoring.models.online`.
"""

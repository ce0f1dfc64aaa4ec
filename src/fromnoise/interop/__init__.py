"""Opening models: a run, a model folder, and what other tools write. `loading.load` is the door."""

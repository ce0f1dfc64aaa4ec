"""Training from Python: a recipe, a run in its folder, a model. On points it takes seconds.

Run it again and it goes on where it was: a run lives in its folder, not in this process.
"""

import sys

import fromnoise as fn
from fromnoise.app.reporting import Silent
from fromnoise.app.train import prepare
from fromnoise.training import TrainSettings

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 1500

if __name__ == "__main__":
    recipe = fn.recipes.get("points-flow").model_copy(
        update={"train": TrainSettings(steps=STEPS, batch_size=512, learning_rate=2e-3)}
    )
    run, _ = prepare(recipe, "runs/points", Silent())
    for event in run.train():
        if event.validation is not None:
            print(f"step {event.step}: held-out loss {event.validation:.4f}")

    model = fn.load("runs/points")
    samples = model.sample(2000, seed=0, batch_size=2000)
    samples.sheet().save("points.png")
    print(f"points.png: {len(samples)} points of {model.card.data}")

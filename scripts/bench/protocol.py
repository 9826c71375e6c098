"""What all contenders share: IMDB, the settings of `tutorial.flags`, and the target quality."""

from collections.abc import Mapping

BATCH_SIZE = 64
VOCAB_SIZE = 1000
LEARNING_RATE = 1e-4
VALIDATION_BATCHES = 30
EXAMPLES = 25_000  # in train, and as many in test
STEPS_PER_EPOCH = -(-EXAMPLES // BATCH_SIZE)
VARIANTS = ("ours", "Keras", "unsorted")
TARGET = {"val_loss": 0.3285, "val_accuracy": 0.856}


def is_reached(metrics: Mapping[str, float]) -> bool:
    """Whether the validation metrics have reached the target."""
    return metrics["val_loss"] <= TARGET["val_loss"] and metrics["val_accuracy"] >= TARGET["val_accuracy"]

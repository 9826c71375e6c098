"""When to save, and the rate between two log lines. Nothing here affects the bits of the result."""

import time

from trainer.config import Config


class SaveInterval:
    """When a checkpoint is due.

    Attributes:
      saved_step: the step of the last save.
    """

    def __init__(self, step: int, config: Config) -> None:
        self.saved_step = step
        self._config = config
        self._saved_at = time.monotonic()

    def is_due(self, step: int) -> bool:
        """Whether --checkpoint_every_steps or --checkpoint_every_secs requires a checkpoint at `step`."""
        steps, secs = self._config.checkpoint_every_steps, self._config.checkpoint_every_secs
        by_steps = steps > 0 and step % steps == 0
        return by_steps or (secs > 0 and time.monotonic() - self._saved_at >= secs)

    def saved(self, step: int) -> None:
        """Starts the next interval at `step`."""
        self.saved_step, self._saved_at = step, time.monotonic()


class Throughput:
    """Reviews per second between two log lines."""

    def __init__(self, step: int, batch_size: int) -> None:
        self._batch_size = batch_size
        self._step, self._at = step, time.monotonic()

    def reviews_per_second(self, step: int) -> float:
        """The rate since the last call."""
        now = time.monotonic()
        rate = (step - self._step) * self._batch_size / (now - self._at)
        self._step, self._at = step, now
        return rate

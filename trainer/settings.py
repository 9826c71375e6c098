"""Checks, merges and compares the settings of a command line and of a run."""

from trainer.config import FIELDS, Config, Settings, check_each
from trainer.fields import OnResume


def check_given(given: Settings, *, is_run: bool) -> None:
    """Raises InputError for settings on the command line that are invalid in any case.

    Args:
      given: the settings that the command line gives.
      is_run: whether the run exists; then its own settings will complete the given ones.
    """
    if is_run and given.get("workdir"):
        check_each(given)
    else:
        Config(**given)


def resolve(given: Settings, stored: Settings) -> Config:
    """The settings of a start: from the command line, else from the run's checkpoint, else the default."""
    return Config(**{**stored, **given})


def changes(stored: Settings, config: Config, on_resume: OnResume) -> list[str]:
    """Each setting of this class that differs from the run's: its name, the run's value and the new one."""
    names = [name for name, field in FIELDS.items() if field.metadata["on_resume"] is on_resume]
    return [
        f"--{name} was {stored[name]} and is {getattr(config, name)} now"
        for name in names
        if name in stored and stored[name] != getattr(config, name)
    ]

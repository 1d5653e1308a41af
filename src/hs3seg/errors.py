"""Errors that tell the user what to do, and the warning class of the package.

Every message names the file or key, what was found, what is allowed and the next step, in one or two lines.
The command line turns a `UserError` into exit code 2 without a traceback; anything else is our bug, exit code 1.
"""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something in the user's input (file, option, config, data) is wrong; the message says how to mend it."""


class ConfigError(UserError):
    """A config value or option is unknown, of the wrong type or out of range."""


class DataError(UserError):
    """An image, mask, split or taxonomy cannot be used as it is."""


class PlanError(UserError):
    """A plan, grouping or confusion matrix does not fit the classes or the stages."""


class NetworkError(UserError):
    """A network, stage name or output cannot be used as asked."""


class CheckpointError(UserError):
    """A weight or state file is truncated, unsafe, or belongs to another network or run."""


class RunFolderError(UserError):
    """A run folder holds another run, or lacks a step's result that was asked for."""


class TrainingError(UserError):
    """Training cannot go on, e.g. because the loss is not finite."""


class Hs3Warning(UserWarning):
    """Something works but is probably not what the user wants."""


def reason_of(error: BaseException) -> str:
    """The first line of what another library said, or the kind of its error where it said nothing."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def nearest(word: str, allowed: Iterable[str], limit: int = 3) -> str:
    """Says which allowed words come nearest to `word`, as the tail of an error message.

    Args:
        word: What was found.
        allowed: What would be right.
        limit: At most this many candidates are named.

    Returns:
        `nearest: 'a', 'b'`, or, where nothing is near, `allowed: 'a', 'b', ...` (at most 12 of them).
    """
    words = list(dict.fromkeys(allowed))
    close = difflib.get_close_matches(word, words, n=limit, cutoff=0.5)
    if close:
        return "nearest: " + ", ".join(repr(c) for c in close)
    shown = ", ".join(repr(w) for w in words[:12])
    return f"allowed: {shown}" + (", ..." if len(words) > 12 else "")

"""Entry point: finds the command, runs it, turns errors into exit codes."""

import json
import os
import sys
import traceback
from collections.abc import Sequence

from hs3seg import __version__
from hs3seg.cli import commands
from hs3seg.cli.parser import make_parser, refuse, split_overrides
from hs3seg.errors import ConfigError, UserError, nearest

_WITH_CONFIG = (
    "demo",
    "run",
    "compare",
    "reproduce",
    "train",
    "analyze",
    "evaluate",
    "submit",
    "export",
    "predict",
    "profile",
    "data",
)

_GOES_ON = {"run": " with --resume"} | dict.fromkeys(("compare", "reproduce", "train", "demo"), "")
"""Commands that go on where they stopped, and what it takes."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: Words after `hs3`; default: those of the process.

    Returns:
        0 = done, 2 = the user's mistake, 1 = ours, 130 = interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(words)
    except UserError as error:
        print(f"hs3: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        again = _GOES_ON.get(words[0]) if words else None
        advice = "" if again is None else f"; what was done is saved. Give the same command{again} to go on."
        print(f"hs3: interrupted{advice}", file=sys.stderr)
        return 130
    except (PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        if error.filename is None:
            return _ours()
        print(
            f"hs3: '{error.filename}' cannot be read or written ({error.strerror}); give another place",
            file=sys.stderr,
        )
        return 2
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; say nothing more, also not at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception:
        return _ours()


def _ours() -> int:
    traceback.print_exc()
    print("hs3: this is a bug of ours; please report it with the lines above", file=sys.stderr)
    return 1


def _dispatch(words: list[str]) -> int:
    parser, made = make_parser()
    if words and words[0] == "--version":
        print(f"hs3seg {__version__}")
        return 0
    if not words:
        parser.print_help()
        return 0
    if not words[0].startswith("-") and words[0] not in made:
        raise ConfigError(f"unknown command '{words[0]}'; {nearest(words[0], made)}")
    own = words
    overrides: list[str] = []
    if words[0] in made:
        own, overrides = split_overrides(made[words[0]], words[1:])
        if words[0] not in _WITH_CONFIG:
            refuse(words[0], overrides)
        own = [words[0], *own]
    try:
        options = parser.parse_args(own)
    except SystemExit as done:  # --help
        return int(done.code or 0)
    result, show = getattr(commands, options.command)(options, overrides)
    _leave_together()
    if os.environ.get("RANK", "0") != "0":
        pass  # of several processes the first one speaks
    elif options.json:
        print(json.dumps(result, allow_nan=False))
    else:
        show(result)
    return int(result.get("exit_code", 0)) if isinstance(result, dict) else 0


def _leave_together() -> None:
    """Ends the process group once all are done: a process that leaves early makes the others abort at their exit."""
    distributed = sys.modules.get("torch.distributed")  # torch is not loaded for this
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()

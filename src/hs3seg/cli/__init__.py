"""The command `hs3`: parse, call, print. Torch is imported by the commands that need it, never here."""

from hs3seg.cli.main import main

__all__ = ["main"]

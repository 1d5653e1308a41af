"""A plan's groups in the formats of other tools, and back; numpy alone, no torch."""

from hs3seg.portable.formats import FORMATS, PortableFormat, read_groups, read_plan, write_groups, write_plan

__all__ = ["FORMATS", "PortableFormat", "read_groups", "read_plan", "write_groups", "write_plan"]

"""Import of published axes: read untrusted files, decide the sign by evidence, turn ceilings into floors."""

from demo.axis_import.build import ImportOptions, import_axis
from demo.axis_import.cli import main
from demo.axis_import.sources import is_importable

__all__ = ["ImportOptions", "import_axis", "is_importable", "main"]

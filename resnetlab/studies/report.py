"""(placeholder)"""

from pathlib import Path


def write_report(results: Path) -> Path:
    return results / "report.html"

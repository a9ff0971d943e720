"""The checksums in torch's files, which torch itself does not look at."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

from resnetlab.errors import UserError


def check_sums(path: Path) -> None:
    """Raise UserError unless the contents of a zip archive have its CRC-32s.

    They are 0 throughout if torch.save was told not to compute them; then nothing is known.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                with archive.open(entry) as file:
                    while entry.CRC and file.read(2**20):
                        pass
    # OSError: a part lies outside the file. RuntimeError: encrypted, or of a kind of compression that zipfile lacks.
    except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, ValueError) as error:
        raise UserError(f"{path}: not a complete torch file ({error}); copy or download it again.") from error

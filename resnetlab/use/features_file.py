"""Files of features: NumPy's npz, and Parquet for tables."""

from __future__ import annotations

import importlib
import io
from pathlib import Path

import numpy as np

from resnetlab.errors import UserError
from resnetlab.storage import check_absent, content_of, write_new
from resnetlab.use.features import Features

SUFFIXES = (".npz", ".parquet")
ARRAYS = ("files", "labels", "features", "network")  # of an npz


def check_out(out: Path) -> None:
    """Raise UserError unless a file of features can be made there; called before the work."""
    if out.suffix not in SUFFIXES:
        raise UserError(f"{out}: the name must end in {' or '.join(SUFFIXES)}.")
    check_absent(out)
    if not out.parent.is_dir():
        raise UserError(f"{out}: can't be written: there is no folder {out.parent}.")
    if out.suffix == ".parquet":
        _pyarrow()


def save(out: Path, found: Features) -> None:
    """Write features as npz, with `files`, `labels`, `features` (float32 N D) and `network`, or as a Parquet table.

    The table has the columns `file`, `label` and `features`, and `network` in the metadata of its schema. Raises
    UserError as `check_out` does, and if the file can't be written.
    """
    check_out(out)
    content = _npz(found) if out.suffix == ".npz" else _table(found)
    write_new(out, content)


def read(path: Path) -> Features:
    """Read an npz that `save` wrote. Raises UserError for another or a damaged file."""
    if path.suffix == ".parquet":
        raise UserError(f"{path}: a table for other programs; search in the .npz that --out wrote, or write one.")
    try:
        with np.load(io.BytesIO(content_of(path)), allow_pickle=False) as arrays:
            files, labels, values, network = (arrays[name] for name in ARRAYS)
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror or error}).") from error
    except Exception as error:  # as many kinds as there are ways to be damaged; numpy's words advise to unpickle it
        raise UserError(f"{path}: not an npz that 'resnetlab features' wrote, or it is damaged.") from error
    kinds = (files.dtype.kind, labels.dtype.kind, values.dtype, network.dtype.kind)
    if kinds != ("U", "U", np.float32, "U") or values.ndim != 2 or not files.shape == labels.shape == values.shape[:1]:
        raise UserError(f"{path}: not an npz of features: its arrays have other types or lengths.")
    if not np.isfinite(values).all():
        raise UserError(f"{path}: damaged, its features are not all finite; write it again.")
    return Features(tuple(files.tolist()), tuple(labels.tolist()), values, str(network))


def _npz(found: Features) -> bytes:
    buffer = io.BytesIO()
    said = {"files": found.files, "labels": found.labels, "network": found.network}
    texts = {name: np.array(value, dtype=str) for name, value in said.items()}
    np.savez(buffer, allow_pickle=False, features=found.values, **texts)
    return buffer.getvalue()


def _table(found: Features) -> bytes:
    _pyarrow()
    import pyarrow as pa
    import pyarrow.parquet as pq

    values = pa.FixedSizeListArray.from_arrays(pa.array(found.values.reshape(-1)), found.values.shape[1])
    columns = {"file": pa.array(found.files), "label": pa.array(found.labels), "features": values}
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, metadata={"network": found.network}), buffer)
    return buffer.getvalue()


def _pyarrow() -> None:
    """Raise UserError where it is missing."""
    try:
        importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise UserError("Parquet needs pyarrow: pip install 'resnetlab[parquet]'; or choose .npz.") from error

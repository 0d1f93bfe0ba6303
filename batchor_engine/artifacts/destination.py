"""The file that a user names as a place for results.

Law: only a regular file is ever replaced; a link leads to the file that is, and stays.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def destination_file(path: Path, *, otherwise: str = "") -> Path:
    """The regular file, or the free name, to which a path leads.

    IsADirectoryError for a folder, FileExistsError for anything else that a rename would take away from everybody who
    uses it; `otherwise` is a way out beside naming a file.
    """
    way_out = f"name a file{otherwise and f', or {otherwise}'}"
    place = Path(os.path.realpath(path))
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        # Nothing is there; what is wrong with its folder is told by whoever writes.
        return place
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, f"results go into a file, and this is a folder: {way_out}", str(path))
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        said = f"this is not a regular file but {kind}, which results would replace: {way_out}"
        raise FileExistsError(errno.EEXIST, said, str(path))
    if not place.exists():
        # Such are the links below /proc: their text names a file that was deleted.
        raise FileExistsError(errno.EEXIST, f"this file has no name any more: {way_out}", str(path))
    return place

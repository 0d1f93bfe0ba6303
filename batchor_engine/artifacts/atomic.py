"""Files that appear whole or not at all, for their owner only.

Law: a name is given to a file only after its bytes are on disk, and a failure leaves neither file nor folder behind.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from batchor_engine.errors import StoreError

_FILE_MODE = 0o600
_DIRECTORY_MODE = 0o700
# Another process may remove an emptied folder between our mkdir and our open; then both are done again.
_TRIES = 20
# Some file systems have nothing to sync in a folder.
_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EROFS)
# A disk, a quota or a limit on file size.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_UNFINISHED = re.compile(r"\.[0-9a-f]{32}\.unfinished")


def is_unfinished(name: str) -> bool:
    """Whether a file name is one of a file that is being written, or was when its process died."""
    return _UNFINISHED.fullmatch(name) is not None


@contextmanager
def whole_file(path: Path, *, root: Path) -> Generator[Path]:
    """A name beside `path` to fill; it becomes `path` at the end, or is gone with the folders made for it.

    Folders up to `root` are removed when empty; `root` itself stays.
    """
    unfinished = _open_unfinished(path.parent)
    try:
        yield unfinished
        _settle(unfinished)
        unfinished.replace(path)
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        remove_empty_folders(path.parent, root)
        if isinstance(error, OSError) and error.errno in _FULL:
            raise StoreError(
                f"There is no room for {path} ({os.strerror(error.errno)}): free some, or raise the quota. Nothing of "
                "it was left behind."
            ) from error
        raise
    sync_directory(path.parent)


def _open_unfinished(folder: Path) -> Path:
    path = folder / f".{secrets.token_hex(16)}.unfinished"
    for attempt in range(_TRIES):
        try:
            make_directory(folder)
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _FILE_MODE))
        except FileNotFoundError as error:
            if attempt == _TRIES - 1:
                raise _unwritable(folder, error) from error
        except OSError as error:
            raise _unwritable(folder, error) from error
        else:
            break
    return path


def _unwritable(folder: Path, error: OSError) -> StoreError:
    return StoreError(
        f"Cannot write below {folder}: {error.strerror or error}. Make that folder writable for this user, or choose "
        "another one."
    )


def _settle(path: Path) -> None:
    handle = os.open(path, os.O_RDWR)
    try:
        # Whoever filled the file may have replaced it by one of another mode.
        with contextlib.suppress(OSError, AttributeError):
            os.fchmod(handle, _FILE_MODE)
        os.fsync(handle)
    finally:
        os.close(handle)


def make_directory(folder: Path) -> None:
    """Create `folder` and its missing parents for their owner only, each made durable in its parent."""
    if folder.is_dir():
        return
    if folder.parent != folder:
        make_directory(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=_DIRECTORY_MODE)
        sync_directory(folder.parent)
    # One look: between two of them somebody may remove the folder, and another make it again.
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISDIR(folder.stat().st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "a file is in the place of a folder", str(folder))


def sync_directory(folder: Path) -> None:
    """Make the names in `folder` durable, where the system can; OSError where the disk fails."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    # A folder that was just emptied is gone and has no names to keep; one that may not be listed cannot be opened.
    with contextlib.suppress(FileNotFoundError, PermissionError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in _CANNOT_SYNC:
                raise
        finally:
            os.close(handle)


def remove_empty_folders(folder: Path, root: Path) -> None:
    """Remove `folder` and its parents below `root` as long as they are empty; `root` itself stays."""
    while folder != root and root in folder.parents:
        try:
            folder.rmdir()
        except FileNotFoundError:
            pass
        except OSError:
            return
        folder = folder.parent


def walk_files(folder: Path) -> Iterator[Path]:
    """Every file below `folder` in name order, symlinks left out; nothing where there is no such folder."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from walk_files(Path(entry.path))
        elif entry.is_file(follow_symlinks=False):
            yield Path(entry.path)

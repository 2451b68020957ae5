"""Files that only their owner can read, and that are either whole or not there."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from conftest import file_size_limit

from bulkusers.errors import StorageError
from bulkusers.files import check_place, move_aside, open_private, replacing


@pytest.fixture
def open_umask() -> Iterator[None]:
    """Take every restriction off new files for a while."""
    old = os.umask(0)
    yield
    os.umask(old)


def mode(path: Path) -> int:
    """Return a file's permissions."""
    return stat.S_IMODE(path.stat().st_mode)


def put(path: Path, content: bytes) -> None:
    """Write a file as the program does."""
    with replacing(path) as file:
        file.write(content)


@pytest.mark.usefixtures("open_umask")
def test_files_are_for_their_owner_only_whatever_the_umask(tmp_path: Path) -> None:
    """So is one that takes the place of a file that everybody could read."""
    open_private(tmp_path / "new").close()
    assert mode(tmp_path / "new") == 0o600
    (tmp_path / "old").write_bytes(b"old")
    assert mode(tmp_path / "old") == 0o666
    put(tmp_path / "old", b"new")
    assert mode(tmp_path / "old") == 0o600


def test_a_file_that_exists_is_not_opened_anew(tmp_path: Path) -> None:
    """Its content stays."""
    path = tmp_path / "file"
    path.write_bytes(b"kept")
    with pytest.raises(StorageError, match=r"^cannot write .*file: File exists$"):
        open_private(path)
    assert path.read_bytes() == b"kept"


def test_a_symlink_is_not_followed(tmp_path: Path) -> None:
    """Not to a file, and not to a name where none is yet."""
    (tmp_path / "target").write_bytes(b"kept")
    for name, target in (("link", "target"), ("dangling", "nothing")):
        (tmp_path / name).symlink_to(tmp_path / target)
        with pytest.raises(StorageError):
            open_private(tmp_path / name)
    assert (tmp_path / "target").read_bytes() == b"kept"
    assert not (tmp_path / "nothing").exists()


def test_an_open_file_can_be_read_back(tmp_path: Path) -> None:
    """The journal depends on it."""
    with open_private(tmp_path / "file") as file:
        file.write(b"line\n")
        file.seek(0)
        assert file.read() == b"line\n"


def test_a_new_file_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    """Until the last byte is written, readers see the old one; afterwards nothing is left beside."""
    path = tmp_path / "results.json"
    put(path, b"old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyboardInterrupt(), StorageError("the journal is gone")])
def test_the_old_file_stays_whole_when_writing_is_given_up(tmp_path: Path, error: BaseException) -> None:
    """The error comes through as it is."""
    path = tmp_path / "results.json"
    put(path, b"old")

    def give_up() -> None:
        with replacing(path) as file:
            file.write(b"half of the new")
            raise error

    with pytest.raises(type(error)) as caught:
        give_up()
    assert caught.value is error
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@contextmanager
def full_at_the_last_moment() -> Iterator[None]:
    """Let the disk be full when the last bytes are to reach it."""

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        yield


@pytest.mark.parametrize(
    ("full_disk", "reason"),
    [(full_at_the_last_moment(), "No space left on device"), (file_size_limit(1000), "File too large")],
)
def test_the_old_file_stays_whole_when_the_disk_is_full(
    tmp_path: Path, full_disk: AbstractContextManager[None], reason: str
) -> None:
    """The error names the file and the reason, and what was written of the new one is gone."""
    path = tmp_path / "results.json"
    put(path, b"old")
    with full_disk, pytest.raises(StorageError, match=rf"^cannot write .*results\.json: {reason}$"):
        put(path, b"n" * 100_000)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_first_error_is_told_where_nothing_can_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that has become read-only refuses what is written, and then to be tidied up."""

    def refuse(path: Path) -> None:
        number = errno.EROFS if path.exists() else errno.ENOENT
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "unlink", refuse)
    with full_at_the_last_moment(), pytest.raises(StorageError, match="No space left on device"):
        put(tmp_path / "results.json", b"new")


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    """Nobody made it, so nothing can be written into it."""
    with pytest.raises(StorageError, match="No such file or directory"):
        put(tmp_path / "none" / "results.json", b"")


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    """Also that of one of our own number; what another process is writing, or another file's, is not."""
    path = tmp_path / "results[1].json"
    for name in (str(os.getpid()), "1", "99999999"):
        (tmp_path / f".results[1].json.{name}.tmp").write_bytes(b"half")
    other = tmp_path / ".results1.json.1.tmp"
    other.write_bytes(b"half")
    os.mkfifo(tmp_path / ".results[1].json.pipe.tmp")
    with (tmp_path / ".results[1].json.2.tmp").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        put(path, b"whole")
        assert path.read_bytes() == b"whole"
        assert {file.name for file in tmp_path.iterdir()} == {
            path.name, other.name, ".results[1].json.2.tmp", ".results[1].json.pipe.tmp",
        }  # fmt: skip


def test_two_processes_do_not_take_each_others_for_abandoned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is last has written the file, and both have written a whole one."""
    path = tmp_path / "results.json"
    with replacing(path) as one:
        one.write(b"one")
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: 1)
            put(path, b"two")
        assert path.read_bytes() == b"two"
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_moved_where_nothing_is(tmp_path: Path) -> None:
    """The first run has no older report."""
    assert move_aside(tmp_path / "results.json") is None
    assert list(tmp_path.iterdir()) == []


def test_an_older_report_is_moved_aside_never_lost(tmp_path: Path) -> None:
    """However many were written at the same time, each keeps a name that tells when, and its kind."""
    path = tmp_path / "results.json"
    for number in range(12):
        path.write_bytes(b"%d" % number)
        os.utime(path, (0, 0))
        aside = move_aside(path)
        assert aside is not None
        assert aside.name.startswith("results.1970-01-01T00-00-00Z")
        assert aside.suffix == ".json"
        assert aside.read_bytes() == b"%d" % number
    kept = [file.read_bytes() for file in tmp_path.iterdir()]
    assert sorted(kept) == sorted(b"%d" % number for number in range(12))


def test_a_good_place_is_found_good_and_left_as_it_is(tmp_path: Path) -> None:
    """Both where nothing is and where an older file stands."""
    path = tmp_path / "results.json"
    check_place(path, "--report")
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"old")
    check_place(path, "--report")
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none/results.json", "No such file or directory"),
        ("file/results.json", "Not a directory"),
        ("folder", "no ordinary file"),
        ("link", "no ordinary file"),
        ("dangling", "no ordinary file"),
        ("pipe", "no ordinary file"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_bad_place_is_found_before_anything_is_sent(tmp_path: Path, name: str, reason: str) -> None:
    """The message says why, the hint which option names another one."""
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageError, match=reason) as caught:
        check_place(tmp_path / name, "--report")
    assert "--report" in caught.value.hint


def test_a_device_is_no_place_for_a_report() -> None:
    """An administrator's run must not put a file in its place."""
    with pytest.raises(StorageError, match="/dev/null is no ordinary file"):
        check_place(Path(os.devnull), "--report")

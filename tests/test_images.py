"""What every changed user's record was is on disk before the change, and comes back as it was or not at all."""

import asyncio
import re
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from conftest import file_size_limit
from runs import equal_line, line, send_lines, sending, statuses, writes

from bulkusers import Existing, read_report
from bulkusers.appendix import frame
from bulkusers.books import images_of
from bulkusers.errors import StorageError
from bulkusers.forecast import Forecast
from bulkusers.images import Album, Images
from bulkusers.models import Image
from bulkusers.sandbox import Fault, Sandbox, Switches, serve

RECORD: Final = {
    "email": "zoë@example.edu",
    "roles": ["a", "b"],
    "n": -1.5,
    "deep": {"x": [None, True]},
    "text": "\n🎓",
}
IMAGES: Final = (
    Image(3, "zoë@example.edu", RECORD, RECORD | {"roles": []}),
    Image(2, "new@example.edu", None, {"email": "new@example.edu"}, certain=False),
    Image(3, "zoë@example.edu", RECORD | {"roles": []}, RECORD),
    Image(9, "gone@example.edu", {"email": "gone@example.edu"}, None),
)
Begin = Callable[..., Images]
ID: Final = "0123456789abcdef"  # of the run whose images they are


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the before-images stand."""
    return tmp_path / "results.before.jsonl"


@pytest.fixture
def write(path: Path) -> Begin:
    """Return a function that writes images into a new file, or goes on with the one that is there."""

    def write(*images: Image) -> Images:
        book = Images.reopen(path, ID)
        for image in images:
            book(image)
        book.close()
        return book

    return write


@pytest.fixture
async def sandbox(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sandbox]:
    """Serve a sandbox that knows twenty example users, where a late write shows soon."""
    monkeypatch.setattr("bulkusers.api.SETTLE", 0.02)
    async with serve(Sandbox(users=20)) as sandbox:
        yield sandbox


def read(path: Path) -> dict[int, tuple[Image, ...]]:
    """Return every image by row, in the order of the album."""
    run = re.match(rb'{"crc":"\w+","run":"(\w+)"', path.read_bytes())
    with Album(path, run[1].decode() if run else ID, {}) as album:
        return {changes.row: changes.images for changes in album}


def test_images_come_back_as_they_were(path: Path, write: Begin) -> None:
    """By row, and for each row in the order of its changes."""
    write(*IMAGES)
    found = read(path)
    assert list(found) == [2, 3, 9]
    assert found == {2: (IMAGES[1],), 3: (IMAGES[0], IMAGES[2]), 9: (IMAGES[3],)}
    with Album(path, ID, {}) as album:
        assert album.rows == 3
        assert [changes.email for changes in album] == ["new@example.edu", "zoë@example.edu", "gone@example.edu"]
        assert {"zoë@example.edu", "\n🎓"} == set(list(album)[1].private)


def test_one_line_is_one_object(path: Path, write: Begin) -> None:
    """Other programs can read the file, too: the checksum is a member like the others."""
    write(*IMAGES)
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    head = lines.pop(0)
    assert (list(head), head["run"]) == (["crc", "run"], ID)
    assert [list(line) for line in lines] == [["crc", "row", "email", "before", "sent", "certain"]] * 4
    assert lines[0]["before"] == RECORD


def test_each_image_is_on_disk_at_once(path: Path) -> None:
    """A kill -9 after the call loses nothing."""
    book = Images.create(path, ID)
    for count, image in enumerate(IMAGES, start=2):
        book(image)
        assert path.read_bytes().count(b"\n") == count
    book.close()


def test_images_are_for_their_owner_only(path: Path, write: Begin) -> None:
    """They hold whole records."""
    write(IMAGES[0])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_is_there_is_not_overwritten_nor_followed(path: Path, tmp_path: Path) -> None:
    """It may be all that is left of another run, or lead into another's folder."""
    path.write_bytes(b"precious\n")
    with pytest.raises(StorageError):
        Images.create(path, ID)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    for open_it in (Images.create, Images.reopen, lambda path, run: Album(path, run, {})):
        with pytest.raises(StorageError):
            open_it(path, ID)
    assert not (tmp_path / "elsewhere").exists()


def test_there_is_no_album_without_a_file(path: Path) -> None:
    """The message names it."""
    with pytest.raises(StorageError, match=r"there is no .*results\.before\.jsonl"):
        Album(path, ID, {})


def damaged(whole: bytes) -> Iterator[bytes]:
    """Yield a file cut at every byte, and with a bit flipped in each."""
    for place in range(len(whole)):
        yield whole[:place]
        yield whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :]


def test_no_cut_and_no_flipped_bit_makes_a_false_image(path: Path, write: Begin) -> None:
    """What is read of a damaged file are the first of the true images; damage before the end is told."""
    write(*IMAGES)
    seen, told = 0, 0
    for content in damaged(path.read_bytes()):
        path.write_bytes(content)
        try:
            found = [image for images in read(path).values() for image in images]
        except StorageError as error:
            assert "damaged in line" in str(error)  # noqa: PT017 - it is one of two ways that are both right
            told += 1
            continue
        kept = sorted(IMAGES[: len(found)], key=lambda image: image.row)
        assert found == kept
        assert len(found) < len(IMAGES)
        seen += 1
    assert seen > len(IMAGES)
    assert told > 100


def test_a_torn_end_is_dropped_before_anything_is_added(path: Path, write: Begin) -> None:
    """Cut anywhere in its last line, the file goes on with whole lines only; damage before the end is refused."""
    write(*IMAGES)
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for end in range(last, len(whole)):
        path.write_bytes(whole[:end])
        write(IMAGES[3])
        assert path.read_bytes() == whole
    path.write_bytes(whole.replace(b"roles", b"rules", 1))
    with pytest.raises(StorageError, match="damaged in line 2"):
        write(IMAGES[3])


def test_a_file_without_a_whole_first_line_is_begun_anew(path: Path, write: Begin) -> None:
    """A power cut may leave nothing else."""
    write(IMAGES[0])
    whole = path.read_bytes()
    for end in range(whole.index(b"\n") + 1):
        path.write_bytes(whole[:end])
        write(IMAGES[0])
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"row": 2, "email": "a@example.edu", "before": None, "sent": None},
        {"row": 2, "email": "a@example.edu", "before": None, "sent": None, "certain": True, "mood": "good"},
        {"row": 0, "email": "a@example.edu", "before": None, "sent": None, "certain": True},
        {"row": "2", "email": "a@example.edu", "before": None, "sent": None, "certain": True},
        {"row": 2, "email": 7, "before": None, "sent": None, "certain": True},
        {"row": 2, "email": "a@example.edu", "before": [], "sent": None, "certain": True},
        {"row": 2, "email": "a@example.edu", "before": None, "sent": "x", "certain": True},
        {"row": 2, "email": "a@example.edu", "before": None, "sent": None, "certain": 1},
    ],
)
def test_a_whole_line_that_this_version_would_never_write_is_damage(
    path: Path, write: Begin, entry: dict[str, object]
) -> None:
    """A right checksum is not enough: nobody guesses what another version meant."""
    write(IMAGES[0])
    text = orjson.dumps(entry)
    path.write_bytes(path.read_bytes() + frame(text))
    with pytest.raises(StorageError, match="damaged in line 3"):
        read(path)


def test_a_full_disk_is_told_and_nothing_is_added_after_it(path: Path) -> None:
    """Behind a gap no image would be found."""
    book = Images.create(path, ID)
    book(IMAGES[0])
    with file_size_limit(path.stat().st_size + 40), pytest.raises(StorageError, match="File too large"):
        book(IMAGES[1])
    with pytest.raises(StorageError, match="gap"):
        book(IMAGES[2])
    book.close()
    found = [image for images in read(path).values() for image in images]
    assert IMAGES[0] in found
    assert IMAGES[2] not in found


# Whole runs.


async def test_every_change_has_its_image(sandbox: Sandbox, tmp_path: Path, path: Path) -> None:
    """The record as it was, the record as it was put; of who was created, the record as it is; of nobody else."""
    before = dict(sandbox.users)
    rows = [line(1), equal_line(2), line(50), line(51, first="")]
    report = await send_lines(sandbox, tmp_path, *rows)
    assert statuses(report) == {2: "updated", 3: "unchanged", 4: "created", 5: "rejected"}
    found = read(path)
    assert list(found) == [2, 4]
    (changed,), (created,) = found[2], found[4]
    assert changed.before == before["user00001@example.edu"]
    assert changed.sent == sandbox.users["user00001@example.edu"]
    assert (created.before, created.certain) == (None, True)
    assert created.sent == sandbox.users["user00050@example.edu"]


async def test_a_run_that_changes_nothing_leaves_no_images(sandbox: Sandbox, tmp_path: Path) -> None:
    """There is nothing to take back."""
    await send_lines(sandbox, tmp_path, equal_line(1), equal_line(2))
    assert not list(tmp_path.glob("*.before.jsonl"))


async def test_images_stay_with_their_report(sandbox: Sandbox, tmp_path: Path, path: Path) -> None:
    """An older report is moved aside together with them."""
    for products in ("catalog", "events", "syllabus"):
        await send_lines(sandbox, tmp_path, line(1, products=products))
    reports = sorted(tmp_path.glob("results*.json"))
    assert len(reports) == 3
    for report in reports:
        (image,) = read(images_of(report))[2]
        assert image.sent is not None
        assert image.before is not None
        (new,) = set(image.sent["products"]) - set(image.before["products"])
        written = read_report(report)
        assert statuses(written) == {2: "updated"}
        assert new == ("syllabus" if report == path.with_name("results.json") else new)


async def test_no_update_is_sent_whose_image_was_not_written(sandbox: Sandbox, tmp_path: Path) -> None:
    """The disk is full before the first image is whole: exit 12, and no PUT."""
    with file_size_limit(600), pytest.raises(StorageError, match=r"before\.jsonl") as caught:
        await send_lines(sandbox, tmp_path, line(1))
    assert caught.value.exit_code == 12
    assert writes(sandbox) == ["POST"]  # which was refused: the user exists


@pytest.mark.parametrize("limit", range(2_000, 12_000, 700))
async def test_every_update_that_was_sent_has_its_image_however_full_the_disk(
    sandbox: Sandbox, tmp_path: Path, path: Path, limit: int
) -> None:
    """Wherever the disk ends, what the API saw can be taken back."""
    before = dict(sandbox.users)
    rows = [line(number, first="Renamed") for number in range(1, 21)]
    with file_size_limit(limit), pytest.raises(StorageError) as caught:
        await send_lines(sandbox, tmp_path, *rows, concurrency=3)
    changed = {email for email, record in sandbox.users.items() if record != before[email]}
    images = {images[0].email: images[0] for images in read(path).values()}
    assert changed <= images.keys()
    assert all(images[email].before == before[email] for email in images)
    assert len(changed) < 20
    assert f"so far: {len(changed)}; make room, then go on with --resume" in caught.value.hint


@pytest.mark.parametrize("changed_only", [True, False])
@pytest.mark.parametrize("existing", ["merge", "overwrite"])
async def test_a_kill_loses_no_image_of_an_update(
    sandbox: Sandbox, tmp_path: Path, path: Path, existing: str, changed_only: bool
) -> None:
    """Killed while updates are being answered: each that arrived has its image, and the resumed run adds its own."""
    before = dict(sandbox.users)
    rows = [line(number, first="Renamed") for number in range(1, 21)]
    sandbox.faults = [Fault(method="PUT", action="delay", seconds=0.5)]
    async with asyncio.timeout(60), sending(sandbox, tmp_path, *rows, existing=existing, changed_only=changed_only):
        while "PUT" not in writes(sandbox):  # noqa: ASYNC110 - the ledger has no event
            await asyncio.sleep(0)
    arrived = {entry.path.rpartition("/")[2].replace("%40", "@") for entry in sandbox.ledger if entry.method == "PUT"}
    images = {images[0].email: images[0] for images in read(path).values()}
    assert arrived
    assert arrived <= images.keys()
    assert all(image.before == before[email] for email, image in images.items())
    sandbox.faults = []
    async with asyncio.timeout(60), sending(sandbox, tmp_path, *rows, existing=existing) as process:
        assert await process.wait() == 0
    first = {images[0].email: images[0] for images in read(path).values() if images[0].before is not None}
    assert {email: image.before for email, image in first.items()} == before


async def test_a_user_who_holds_the_row_after_a_lost_create_may_be_ours(
    sandbox: Sandbox, tmp_path: Path, path: Path
) -> None:
    """An API that fills something in lets nobody see who made the user: unchanged, and written down all the same."""
    sandbox.switches = Switches(defaults="filled")
    sandbox.faults = [Fault(method="POST", path="*/users", action="reset_after")]
    report = await send_lines(sandbox, tmp_path, line(50))
    assert statuses(report) == {2: "unchanged"}
    (image,) = read(path)[2]
    assert (image.before, image.certain, image.sent) == (None, False, sandbox.users["user00050@example.edu"])


async def test_a_create_after_a_look_is_one_whatever_the_api_fills_in(
    sandbox: Sandbox, tmp_path: Path, path: Path
) -> None:
    """There was nobody, and now there is somebody who holds the row: created, and the image has what was filled in."""
    sandbox.switches = Switches(defaults="filled")
    sandbox.faults = [
        Fault(method="POST", path="*/users", action="reset_before", nth=1),
        Fault(method="POST", path="*/users", action="reset_after"),
    ]
    report = await send_lines(sandbox, tmp_path, line(50))
    assert statuses(report) == {2: "created"}
    (image,) = read(path)[2]
    assert (image.before, image.certain, image.sent) == (None, True, sandbox.users["user00050@example.edu"])


@pytest.mark.parametrize(("depth", "status"), [(252, "updated"), (253, "failed"), (900, "failed")])
async def test_a_record_that_nests_too_deeply_to_be_kept_is_left_alone(
    sandbox: Sandbox, tmp_path: Path, depth: int, status: str
) -> None:
    """It can be read, and neither sent back nor written down: the run goes on without it."""
    body = '{"email":"user00001@example.edu","deep":' + "[" * depth + "]" * depth + "}"
    sandbox.faults = [Fault(method="GET", path="*/user00001@*", action="status", status=200, body=body)]
    report = await send_lines(sandbox, tmp_path, line(1), line(2))
    assert statuses(report) == {2: status, 3: "updated"}


async def test_a_create_that_is_only_seen_afterwards_is_not_certain(
    sandbox: Sandbox, tmp_path: Path, path: Path
) -> None:
    """Its answer is lost: who is there may have been there before."""
    sandbox.faults = [Fault(method="POST", path="*/users", action="reset_after")]
    report = await send_lines(sandbox, tmp_path, line(50))
    assert statuses(report) == {2: "created"}
    (image,) = read(path)[2]
    assert (image.before, image.certain) == (None, False)


async def test_a_create_after_a_look_is_certain(sandbox: Sandbox, tmp_path: Path, path: Path) -> None:
    """It was seen that there was nobody, before it was sent again, though the second answer is lost, too."""
    sandbox.faults = [
        Fault(method="POST", path="*/users", action="reset_before", nth=1),
        Fault(method="POST", path="*/users", action="reset_after"),
    ]
    report = await send_lines(sandbox, tmp_path, line(50))
    assert statuses(report) == {2: "created"}
    (image,) = read(path)[2]
    assert (image.before, image.certain) == (None, True)
    assert writes(sandbox) == ["POST", "POST"]


async def test_a_create_of_whom_the_list_did_not_have_is_certain(sandbox: Sandbox, tmp_path: Path, path: Path) -> None:
    """The list of users is a look, too."""
    sandbox.faults = [Fault(method="POST", path="*/users", action="reset_after")]
    report = await send_lines(sandbox, tmp_path, line(50), changed_only=True)
    assert statuses(report) == {2: "created"}
    (image,) = read(path)[2]
    assert (image.before, image.certain) == (None, True)


@pytest.mark.parametrize("changed_only", [True, False])
async def test_a_create_that_a_kill_cut_off_is_not_certain(
    sandbox: Sandbox, tmp_path: Path, path: Path, changed_only: bool
) -> None:
    """Nobody wrote down what was there before; the resumed run finds the user and says so."""
    sandbox.faults = [Fault(method="POST", path="*/users", action="delay", seconds=5)]
    async with asyncio.timeout(60), sending(sandbox, tmp_path, line(50), changed_only=changed_only):
        while "user00050@example.edu" not in sandbox.users:  # noqa: ASYNC110 - the ledger has no event
            await asyncio.sleep(0.002)
    assert read(path) == {}
    async with asyncio.timeout(60), sending(sandbox, tmp_path, line(50), changed_only=changed_only) as process:
        assert await process.wait() == 0
    assert statuses(read_report(tmp_path / "results.json")) == {2: "created"}
    (image,) = read(path)[2]
    assert (image.before, image.certain) == (None, False)
    assert len(writes(sandbox)) == 1


async def test_an_update_that_is_sent_again_has_an_image_of_each_time(
    sandbox: Sandbox, tmp_path: Path, path: Path
) -> None:
    """The second begins with what was there then: somebody else may have been there between."""

    def change() -> None:
        sandbox.users["user00001@example.edu"] |= {"notes": "meanwhile"}

    sandbox.faults = [Fault(method="PUT", action="reset_before", nth=1)]
    before = dict(sandbox.users["user00001@example.edu"])
    task = asyncio.ensure_future(send_lines(sandbox, tmp_path, line(1)))
    while "PUT" not in writes(sandbox):  # noqa: ASYNC110 - the ledger has no event
        await asyncio.sleep(0)
    change()
    report = await task
    assert statuses(report) == {2: "updated"}
    first, second = read(path)[2]
    assert first.before == before
    assert second.before == before | {"notes": "meanwhile"}
    assert sandbox.users["user00001@example.edu"]["notes"] == "meanwhile"


async def test_who_was_deleted_behind_the_list_has_both_images(sandbox: Sandbox, tmp_path: Path, path: Path) -> None:
    """The update that found nobody, and the creation."""
    before = dict(sandbox.users["user00001@example.edu"])

    def approve(_: Forecast) -> bool:
        del sandbox.users["user00001@example.edu"]
        return True

    await send_lines(sandbox, tmp_path, line(1), changed_only=True, approve=approve)
    first, second = read(path)[2]
    assert first.before == before
    assert (second.before, second.certain) == (None, True)


async def test_an_overwritten_user_is_not_taken_for_a_new_one_after_a_kill(
    sandbox: Sandbox, tmp_path: Path, path: Path
) -> None:
    """The image of the killed run says that there was somebody."""
    before = dict(sandbox.users["user00001@example.edu"])
    sandbox.switches = Switches(latency=0.0)
    sandbox.faults = [Fault(method="PUT", action="delay", seconds=5)]
    async with asyncio.timeout(60), sending(sandbox, tmp_path, line(1), existing=Existing.OVERWRITE):
        while sandbox.users["user00001@example.edu"] == before:  # noqa: ASYNC110 - the ledger has no event
            await asyncio.sleep(0.002)
    sandbox.faults = []
    async with asyncio.timeout(60), sending(sandbox, tmp_path, line(1), existing=Existing.OVERWRITE) as process:
        assert await process.wait() == 0
    images: Any = read(path)[2]
    assert images[0].before == before
    assert not any(image.certain and image.before is None for image in images)

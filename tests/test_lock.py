"""Who may run at the same time: one run for one account, wherever it is started."""

from pathlib import Path
from typing import Any

import pytest
from conftest import MakeSettings

from bulkusers import Secret
from bulkusers.errors import LockedError, StorageError
from bulkusers.lock import hold_lock

URL = "https://api.example.edu/api/v1"
EMAIL = "admin@example.edu"


@pytest.fixture(autouse=True)
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep locks in a folder of their own."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"base_url": f"{URL}/"},
        {"base_url": "HTTPS://API.Example.EDU/api/v1"},
        {"base_url": "https://api.example.edu:443/api/v1"},
        {"email": " Admin@Example.EDU"},
        {"token": Secret("t"), "school": "another"},
    ],
)
def test_one_account_has_one_lock(make_settings: MakeSettings, other: dict[str, Any]) -> None:
    """However its name and the API's are spelled, whatever its token and school."""
    first = {"base_url": URL, "email": EMAIL}
    with hold_lock(make_settings(**first)), pytest.raises(LockedError), hold_lock(make_settings(**first | other)):
        pass


@pytest.mark.parametrize(
    "other",
    [
        {"email": "other@example.edu"},
        {"base_url": "https://api.example.edu:8443/api/v1"},
        {"base_url": "https://api.example.edu/API/v1"},
        {"email": "", "token": Secret("t")},  # nobody can know whose it is
    ],
)
def test_another_account_has_another(make_settings: MakeSettings, other: dict[str, Any]) -> None:
    """And so has an account at another API."""
    first = {"base_url": URL, "email": EMAIL}
    with hold_lock(make_settings(**first)), hold_lock(make_settings(**first | other)):
        pass


def test_a_symlink_in_the_place_of_a_lock_is_not_followed(make_settings: MakeSettings, locks: Path) -> None:
    """Somebody planted it: the run does not begin, and the file that it leads to stays as it is."""
    precious = locks / "precious"
    precious.write_text("precious")
    with hold_lock(make_settings(email=EMAIL)):
        pass
    (lock,) = locks.glob("*.lock")
    lock.unlink()
    lock.symlink_to(precious)
    with pytest.raises(StorageError, match="cannot lock") as caught, hold_lock(make_settings(email=EMAIL)):
        pass
    assert caught.value.exit_code == 12
    assert "nothing was sent" in caught.value.hint
    assert precious.read_text() == "precious"

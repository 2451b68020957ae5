"""Where settings come from, and which of them wins."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

import bulkusers.cli.app  # noqa: F401 - it knows every option
from bulkusers.cli.config import (
    PROPERTIES,
    Target,
    find_password,
    find_proxy,
    find_target,
    find_token,
    is_open_to_others,
    load_properties,
    read_properties,
    save_properties,
)
from bulkusers.cli.screen import Screen
from bulkusers.errors import SettingsError
from bulkusers.models import Secret
from bulkusers.profile import load_profile

Write = Callable[[str], Path]
TOKEN = "eyJ-not-to-be-seen"
HOSTS = load_profile().hosts


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a properties file and returns where."""

    def write(text: str) -> Path:
        path = tmp_path / "my.properties"
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
        return path

    return write


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away whatever this machine says of proxies and of us."""
    for name in list(os.environ):
        if name.startswith("BULKUSERS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    "text",
    [
        "token = abc\nschool = example\n",
        "[coursedog]\ntoken = abc\nschool = example\n",
        "token=abc\r\nschool=example\r\n",
        "\ufeffTOKEN = abc\nSchool=example",
        "# token = other\n; a comment\n\ntoken = abc\nschool = example\nlevel = 9\n",
        "[DEFAULT]\ntoken = abc\nschool = example\n",
        "[one]\ntoken = abc\n[two]\nschool = example\n",
        "token = abc\n  school = example\n",
        "token =\ntoken = abc\nschool = example\n",
        "token = abc\n[one]\ntoken = abc\nlevel = 8\n[two]\nlevel = 9\nschool = example\n",
    ],
)
def test_properties_are_lines_of_key_and_value(write: Write, text: str) -> None:
    """With or without section headers, comments, indentation, repetitions and keys that mean nothing."""
    assert read_properties(write(text), Screen()) == {"token": "abc", "school": "example"}


def test_values_are_taken_as_they_are(write: Write) -> None:
    """An = or a % is part of it; what is blank is not said."""
    path = write("token = a=b==%s%(x)s\nbase-url = https://x.example.edu/a:b\nemail =\n")
    assert load_properties(path) == {"base_url": "https://x.example.edu/a:b", "token": "a=b==%s%(x)s"}


def test_the_usual_file_need_not_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was named must; without a name it is the one in the working folder."""
    monkeypatch.chdir(tmp_path)
    assert load_properties(None) == {}
    with pytest.raises(SettingsError, match=r"there is no other\.properties") as caught:
        load_properties(Path("other.properties"))
    assert "bulkusers login" in caught.value.hint
    PROPERTIES.write_text("env = staging\n")
    assert load_properties(None) == {"env": "staging"}


@pytest.mark.parametrize(
    "line", [f"= {TOKEN}", TOKEN, f"token: {TOKEN}", f"token: {TOKEN}==", f"token {TOKEN}", f"! token = {TOKEN}", "[]"]
)
def test_a_line_that_says_nothing_is_told_without_its_content(write: Write, line: str) -> None:
    """Whoever wrote `env: staging` would get a rehearsal otherwise; and the line may be the token's."""
    path = write(f"school = example\n\n{line}\n")
    with pytest.raises(SettingsError, match=r"my\.properties: line 3 is no `key = value`") as caught:
        load_properties(path)
    assert TOKEN not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("key", ["env", "base_url", "Base-URL", "school", "email", "TOKEN"])
def test_a_key_with_two_values_is_told_without_them(write: Write, key: str) -> None:
    """Which of them is meant is not known: sections for two schools must not make a third of both."""
    path = write(f"[one]\n{key} = {TOKEN}\n\n[two]\n{key.lower()} = another\n")
    name = key.lower().replace("-", "_")
    with pytest.raises(SettingsError, match=rf"my\.properties: {name} stands there twice, .* line 5$") as caught:
        load_properties(path)
    assert TOKEN not in f"{caught.value} {caught.value.hint}"
    assert "--properties" in caught.value.hint


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """A folder, or bytes that are no text."""
    with pytest.raises(SettingsError, match="Is a directory"):
        load_properties(tmp_path)
    path = tmp_path / "my.properties"
    path.write_bytes(b"token = \xff\n")
    with pytest.raises(SettingsError, match=r"cannot read .*my\.properties"):
        load_properties(path)


@pytest.mark.parametrize(
    ("mode", "is_open"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True), (0o620, True)]
)
def test_a_token_that_others_can_read_is_worth_a_warning(
    write: Write, capsys: pytest.CaptureFixture[str], mode: int, is_open: bool
) -> None:
    """The warning says how to mend it; the token itself is never shown."""
    path = write(f"token = {TOKEN}\n")
    path.chmod(mode)
    assert is_open_to_others(path) is is_open
    read_properties(path, Screen(verbose=True))
    said = capsys.readouterr().err
    assert (f"chmod 600 {path}" in said) is is_open
    assert TOKEN not in said
    assert "says: token" in said


def test_a_file_without_a_token_may_be_read_by_all(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """A school's id is no secret."""
    path = write("school = example\n")
    path.chmod(0o644)
    assert read_properties(path, Screen()) == {"school": "example"}
    assert capsys.readouterr().err == ""


def test_saving_keeps_other_lines(write: Write) -> None:
    """Comments and foreign keys stay; our keys are said once, and an empty value takes its line out."""
    path = write("# ours\nTOKEN=old\nlevel = 9\nbase-url = https://x.example.edu\nschool = example\n")
    path.chmod(0o644)
    save_properties(path, {"token": "new", "base_url": "", "email": "api@example.edu"})
    assert path.read_text().splitlines() == [
        "# ours",
        "level = 9",
        "school = example",
        "token = new",
        "email = api@example.edu",
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_properties(path, Screen()) == {"school": "example", "email": "api@example.edu", "token": "new"}


def test_a_key_that_means_nothing_is_named(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """A typing error in a key must not pass for an empty setting; its value is not shown."""
    read_properties(write(f"tokn = {TOKEN}\n"), Screen())
    said = capsys.readouterr().err
    assert "tokn is not used" in said
    assert TOKEN not in said


def test_a_variable_that_means_nothing_is_named(
    write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cap with a typing error in its name would cap nothing; an option of any command is known."""
    for name in ("TOKEN", "PASSWORD", "RATE", "PORT", "MAX_UPDATE", "NO_NOTIFY", "NO_RATE"):
        monkeypatch.setenv(f"BULKUSERS_{name}", "0")
    read_properties(write(""), Screen())
    assert capsys.readouterr().err.splitlines() == [
        "warning: BULKUSERS_MAX_UPDATE is not used: there is no such option",
        "warning: BULKUSERS_NO_NOTIFY is not used: write BULKUSERS_NOTIFY=0",
        "warning: BULKUSERS_NO_RATE is not used: there is no such option",
    ]


@pytest.mark.parametrize(
    ("env", "base_url", "refused"),
    [
        ("production", None, True),
        (None, "https://other.example.edu", True),
        ("staging", None, False),
        (None, HOSTS["staging"], False),
        (None, "http://127.0.0.1:9/api/v1", False),  # nothing leaves this machine
        ("sandbox", None, False),
    ],
)
def test_a_token_is_not_sent_to_another_host_than_its_own(
    monkeypatch: pytest.MonkeyPatch, env: str | None, base_url: str | None, refused: bool
) -> None:
    """What was got for staging is none of production's business, let alone a stranger's."""
    said = {"env": "staging", "school": "s", "token": TOKEN}
    if not refused:
        find_target(env, base_url, None, said, load_profile())
        return
    with pytest.raises(SettingsError, match="is for https://staging") as caught:
        find_target(env, base_url, None, said, load_profile())
    assert TOKEN not in str(caught.value)
    monkeypatch.setenv("BULKUSERS_TOKEN", "another")
    find_target(env, base_url, None, said, load_profile())


def test_saving_makes_a_file_for_its_owner_only(tmp_path: Path) -> None:
    """Whatever the umask is."""
    path = tmp_path / "my.properties"
    old = os.umask(0)
    try:
        save_properties(path, {"token": "new"})
    finally:
        os.umask(old)
    assert path.read_text() == "token = new\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_saving_writes_through_a_symlink(write: Write, tmp_path: Path) -> None:
    """Whoever keeps the file elsewhere has one token, and not an older one there."""
    real = write("token = old\n")
    real.chmod(0o644)
    folder = tmp_path / "work"
    folder.mkdir()
    link = folder / "coursedog.properties"
    link.symlink_to("../my.properties")
    save_properties(link, {"token": "new"})
    assert link.is_symlink()
    assert real.read_text() == "token = new\n"
    assert stat.S_IMODE(real.stat().st_mode) == 0o600
    assert [*folder.iterdir(), *tmp_path.glob(".my*")] == [link]


@pytest.mark.parametrize(
    ("variable", "properties", "token"),
    [
        ("abc", {}, "abc"),
        (None, {"token": "abc"}, "abc"),
        ("abc", {"token": "other"}, "abc"),
        ("", {"token": "abc"}, "abc"),
        ("abc\n", {}, "abc"),
        (None, {"token": "addme"}, ""),
        ("addme", {}, ""),
        (None, {}, ""),
    ],
)
def test_a_token_comes_from_the_environment_or_the_file(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, properties: dict[str, str], token: str
) -> None:
    """The environment goes first, and the placeholder of the vendor's example is no token."""
    if variable is not None:
        monkeypatch.setenv("BULKUSERS_TOKEN", variable)
    assert find_token(properties) == Secret(token)


def test_a_password_comes_from_the_environment_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blanks may be part of it."""
    assert not find_password()
    monkeypatch.setenv("BULKUSERS_PASSWORD", " hunter2 ")
    assert find_password() == Secret(" hunter2 ")


@pytest.mark.parametrize(
    ("env", "base_url", "school", "properties", "target"),
    [
        (None, None, None, {}, Target("sandbox", "", "", configured=False)),
        ("sandbox", None, None, {}, Target("sandbox", "", "", configured=True)),
        ("staging", None, "a", {}, Target("staging", HOSTS["staging"], "a", configured=True)),
        ("production", None, "a", {}, Target("production", HOSTS["production"], "a", configured=True)),
        (None, "https://x", "a", {}, Target("custom", "https://x", "a", configured=True)),
        ("staging", "https://x", "a", {}, Target("custom", "https://x", "a", configured=True)),
        (None, None, None, {"env": "staging"}, Target("staging", HOSTS["staging"], "", configured=True)),
        (None, None, None, {"env": "sandbox"}, Target("sandbox", "", "", configured=True)),
        (None, None, None, {"base_url": "https://x"}, Target("custom", "https://x", "", configured=True)),
        (
            None,
            None,
            None,
            {"env": "staging", "base_url": "https://x"},
            Target("custom", "https://x", "", configured=True),
        ),
        ("sandbox", None, None, {"env": "production"}, Target("sandbox", "", "", configured=True)),
        ("staging", None, None, {"base_url": "https://x"}, Target("staging", HOSTS["staging"], "", configured=True)),
        (None, "https://y", None, {"env": "production"}, Target("custom", "https://y", "", configured=True)),
        (None, None, None, {"school": "a"}, Target("sandbox", "", "a", configured=False)),
        (None, None, "b", {"school": "a"}, Target("sandbox", "", "b", configured=False)),
    ],
)
def test_where_to_send(
    env: str | None, base_url: str | None, school: str | None, properties: dict[str, str], target: Target
) -> None:
    """What was ordered goes before what the file says, as a whole: no half order is completed with a stale host."""
    assert find_target(env, base_url, school, properties, load_profile()) == target


@pytest.mark.parametrize(("env", "properties"), [("prod", {}), (None, {"env": "prod"})])
def test_an_unknown_environment_is_refused(env: str | None, properties: dict[str, str]) -> None:
    """It may mean production."""
    with pytest.raises(SettingsError, match="there is no environment 'prod'") as caught:
        find_target(env, None, None, properties, load_profile())
    assert "production" in caught.value.hint


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, "https://app.example.edu/api", ""),
        (
            {"https_proxy": "http://proxy.example.edu:3128"},
            "https://app.example.edu/api",
            "http://proxy.example.edu:3128",
        ),
        (
            {"HTTPS_PROXY": "http://proxy.example.edu:3128"},
            "https://app.example.edu/api",
            "http://proxy.example.edu:3128",
        ),
        ({"https_proxy": "proxy.example.edu:3128"}, "https://app.example.edu/api", "http://proxy.example.edu:3128"),
        ({"http_proxy": "http://proxy.example.edu:3128"}, "https://app.example.edu/api", ""),
        ({"https_proxy": "http://p", "no_proxy": "app.example.edu"}, "https://app.example.edu/api", ""),
        ({"https_proxy": "http://p", "no_proxy": "x.org, .example.edu"}, "https://app.example.edu/api", ""),
        ({"https_proxy": "http://p", "no_proxy": "*"}, "https://app.example.edu/api", ""),
        ({"https_proxy": "http://p", "no_proxy": "x.org"}, "https://app.example.edu/api", "http://p"),
        ({"http_proxy": "http://p"}, "http://127.0.0.1:8080/api", ""),
        ({"http_proxy": "http://p"}, "http://[::1]:8080", ""),
        ({"https_proxy": "http://p"}, "https://localhost", ""),
        ({"https_proxy": "http://p"}, "", ""),
    ],
)
def test_a_proxy_is_what_the_environment_says_for_that_url(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], url: str, proxy: str
) -> None:
    """And none for this machine: a token in the clear must not leave it."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert find_proxy(url) == proxy

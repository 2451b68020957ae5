"""The API profile: what it says by itself, what a school may say otherwise, and what it must not."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bulkusers.errors import SettingsError
from bulkusers.profile import DEFAULTS, load_profile

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes an API profile and returns where."""

    def write(text: str) -> Path:
        path = tmp_path / "api.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_the_built_in_profile_passes_its_own_checks() -> None:
    """What the program ships is what it would accept from anybody, and repeating it changes nothing."""
    assert load_profile(DEFAULTS) == load_profile()
    assert load_profile().hosts["production"].startswith("https://")


def test_a_profile_may_say_a_single_thing_otherwise(write: Write) -> None:
    """Whatever the file does not name stays as it was, in the same table and in the others."""
    usual = load_profile()
    profile = load_profile(write('[fields]\nfirst_name = "givenName"\n[paths]\nroles = ["/{school}/r"]\n'))
    assert profile.fields.first_name == "givenName"
    assert profile.fields.last_name == usual.fields.last_name
    assert profile.paths.roles == ("/{school}/r",)
    assert profile.paths.create == usual.paths.create
    assert (profile.login, profile.statuses, profile.hosts) == (usual.login, usual.statuses, usual.hosts)


@pytest.mark.parametrize(
    "text",
    [
        "[statuses]\nfound = [200, 409]\nreplaced = [200, 201]",  # one answers a read, the other a create
        "[records]\nown = ['createdAt', 'noMail', 'error']\n[fields]\nno_mail = 'noMail'",
        "[paths]\ncreate = '/{school}/us%C3%A9rs'",
    ],
)
def test_what_only_looks_like_a_contradiction_is_taken(write: Write, text: str) -> None:
    """A check that refused it would keep a school out whose API is like that."""
    assert load_profile(write(text)) != load_profile()


def test_a_byte_order_mark_is_no_part_of_a_profile(write: Write) -> None:
    """Editors on Windows write one."""
    assert load_profile(write('\ufeff[fields]\nfirst_name = "givenName"\n')).fields.first_name == "givenName"


def test_an_override_is_for_one_load_only(write: Write) -> None:
    """The next profile is the built-in one again."""
    load_profile(write('[hosts]\nstaging = "https://other.example.edu/api"\n'))
    assert load_profile().hosts["staging"] != "https://other.example.edu/api"


def test_an_empty_file_is_a_profile(write: Write) -> None:
    """It says nothing otherwise."""
    assert load_profile(write("")) == load_profile()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[feilds]\nemail = 'mail'", "feilds"),
        ("fields = 'email'", "fields"),
        ("[fields]\nemial = 'mail'", "fields.emial"),
        ("[fields]\nemail = 3", "fields.email"),
        ("[fields]\nemail = ''", "fields.email"),
        ("[statuses]\ncreated = 201", "statuses.created"),
        ("[statuses]\ncreated = []", "statuses.created"),
        ("[statuses]\ncreated = ['201']", "statuses.created"),
        ("[statuses]\ncreated = [true]", "statuses.created"),
        ("[statuses]\ncreated = [200, 201.0]", "statuses.created"),
        ("[hosts]\nproduction = ['https://a.example.edu']", "hosts.production"),
        ("[paths]\ncreate = 'users'", "paths.create"),
        ("[paths]\ncreate = 'https://evil.example.edu/'", "paths.create"),
        ("[paths]\nuser = '/{school}/../../admin'", "paths.user"),
        ("[paths]\nuser = '/./{email}'", "paths.user"),
        ("[paths]\nuser = '/{school}/..'", "paths.user"),
        ("[paths]\nusers = '/{scool}/users'", "paths.users"),
        ("[paths]\nusers = '/{}/users'", "paths.users"),
        ("[paths]\nusers = '/{school/users'", "paths.users"),
        ("[paths]\nusers = '/{school.name}'", "paths.users"),
        ("[paths]\nusers = '/{school[name]}'", "paths.users"),
        ("[paths]\nroles = ['/roles', 'roles']", "paths.roles"),
        ("[paths]\nuser = '/{school}/users'", "paths.user"),
        ("[paths]\ncreate = '/{school}/users/{email}'", "paths.create"),
        ("[paths]\ncreate = '/{school}/users?x=1'", "paths.create"),
        ("[fields]\nexternal_id = 'email'", "fields.external_id"),
        ("[statuses]\nexists = [409, 201]", "statuses.exists"),
        ("[statuses]\nnot_found = [404, 200]", "statuses.not_found"),
        ("[statuses]\nfound = [200, 404]", "statuses.found"),
        ("[statuses]\nnot_found = [404, 204]", "statuses.not_found"),
        ("[statuses]\nmaybe_exists = [409]", "statuses.maybe_exists"),
        ("[values]\ninactive = 'active'", "values.inactive"),
        ("[records]\nown = ['createdAt', 'roles']", "records.own and fields.roles"),
        ("[fields]\nexternal_id = 'id'", "records.own and fields.external_id"),
        ("[paths]\ncreate = '/{school}/usérs'", "paths.create"),
        ("[paths]\ncreate = '/{school}/all users'", "paths.create"),
        ('[paths]\ncreate = "/{school}/\\u007f"', "paths.create"),
        ("[login]\npath = '/séss'", "login.path"),
        ("[login]\npath = '/../sessions'", "login.path"),
        ("[login]\npath = '@evil.example.edu/sessions'", "login.path"),
    ],
)
def test_every_wrong_override_is_named(write: Write, text: str, named: str) -> None:
    """The error holds the file and the one thing that is wrong in it."""
    path = write(text)
    with pytest.raises(SettingsError) as caught:
        load_profile(path)
    assert str(path) in str(caught.value)
    assert f" {named}" in str(caught.value).replace(":", " ")


def test_an_unknown_name_comes_with_the_known_ones(write: Write) -> None:
    """A typing error is mended without looking anything up."""
    with pytest.raises(SettingsError) as caught:
        load_profile(write("[fields]\nemial = 'mail'"))
    assert "fields.email," in caught.value.hint
    with pytest.raises(SettingsError) as caught:
        load_profile(write("[feilds]\nemail = 'mail'"))
    assert "fields" in caught.value.hint


@pytest.mark.parametrize("content", [b"[fields\n", b"[fields]\nemail = mail\n", b"\xff\xfe"])
def test_a_file_that_is_not_toml_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    """The error names the file."""
    path = tmp_path / "api.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"api\.toml is not TOML"):
        load_profile(path)


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    """So is a folder in its place."""
    with pytest.raises(SettingsError, match=r"cannot read the API profile .*none\.toml: No such file"):
        load_profile(tmp_path / "none.toml")
    with pytest.raises(SettingsError, match="Is a directory"):
        load_profile(tmp_path)

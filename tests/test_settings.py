"""What a run is told is checked before anything is sent."""

import pytest
from conftest import MakeSettings

from bulkusers.errors import SettingsError
from bulkusers.models import Existing, Lists, Secret
from bulkusers.profile import load_profile
from bulkusers.settings import MAX_CONCURRENCY, Settings, is_loopback


@pytest.mark.parametrize(
    "url",
    [
        "https://app.example.edu/api/v1",
        "https://app.example.edu:8443/api",
        "http://localhost:8080/api/v1",
        "http://127.0.0.1:8080",
        "http://127.9.9.9",
        "http://[::1]:8080/api",
        "HTTPS://APP.EXAMPLE.EDU",
    ],
)
def test_a_token_may_go_there(make_settings: MakeSettings, url: str) -> None:
    """Anywhere with encryption, and without it to this machine; a host has one spelling."""
    assert make_settings(base_url=url).base_url == url.lower()


@pytest.mark.parametrize(
    "url",
    [
        "http://app.example.edu",
        "http://127.0.0.1.example.edu",
        "http://localhost.example.edu",
        "http://10.0.0.1",
        "http://0.0.0.0",
        "http://[2001:db8::1]",
        "http://localhost@app.example.edu",
        "https://user@app.example.edu",
        "https://:hunter2@app.example.edu",
        "https://app.example.edu?token=hunter2",
        "https://app.example.edu#fragment",
        "ftp://app.example.edu",
        "app.example.edu",
        "https://",
        "https:///api",
        "https://[::1",
        "https://app.example.edu:port",
        "https://app.example.edu:99999",
        "",
    ],
)
def test_a_token_goes_nowhere_else(make_settings: MakeSettings, url: str) -> None:
    """Neither in the clear nor to nobody knows where, and the refusal repeats no password."""
    with pytest.raises(SettingsError) as caught:
        make_settings(base_url=url)
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("url", ["https://app.example.edu/apí", "https://bücher.example.edu", "http://127.0.0.1:9/é"])
def test_a_url_is_of_the_letters_that_a_request_can_hold(make_settings: MakeSettings, url: str) -> None:
    """The hint says how the others are spelled, and what is spelled so is taken."""
    with pytest.raises(SettingsError, match="the base URL holds letters beyond ASCII") as caught:
        make_settings(base_url=url)
    assert "%XX" in caught.value.hint
    assert "xn--" in caught.value.hint
    for spelled in ("https://app.example.edu/ap%C3%AD", "https://xn--bcher-kva.example.edu"):
        assert make_settings(base_url=spelled).base_url == spelled


@pytest.mark.parametrize("password", ["密", "%E5%AF%86", "\udce4"])
def test_a_proxy_that_cannot_be_told_its_account_is_refused(make_settings: MakeSettings, password: str) -> None:
    """HTTP writes an account in Latin-1; the refusal does not repeat it."""
    with pytest.raises(SettingsError, match="the account in the proxy of the environment holds letters") as caught:
        make_settings(proxy=f"http://somebody:{password}@proxy.example.edu:3128")
    assert "somebody" not in f"{caught.value!r} {caught.value.hint}"
    for known in ("pass", "pässe", "p%C3%A4ss", "100%E4"):
        make_settings(proxy=f"http://somebody:{known}@proxy.example.edu:3128")


def test_a_host_in_the_clear_is_named(make_settings: MakeSettings) -> None:
    """The message says which host, the hint what to do."""
    with pytest.raises(SettingsError, match=r"^app\.example\.edu would be spoken to without encryption") as caught:
        make_settings(base_url="http://app.example.edu/api/v1")
    assert "https" in caught.value.hint


@pytest.mark.parametrize("school", ["a", "peoplesoft_example", "x-1", "s" * 64])
def test_a_school_id_is_of_small_letters_digits_and_lines(make_settings: MakeSettings, school: str) -> None:
    """That is what the vendor's ids look like."""
    assert make_settings(school=school).school == school


@pytest.mark.parametrize("school", ["Example", "my school", "a/b", "..", "a%2fb", "école", "s" * 65, "school\n"])
def test_what_would_change_the_path_is_no_school_id(make_settings: MakeSettings, school: str) -> None:
    """It stands in every path, so it is refused by its name."""
    with pytest.raises(SettingsError) as caught:
        make_settings(school=school)
    assert str(caught.value) == f"{school!r} is no School Unique ID"


def test_no_school_is_said_to_be_missing(make_settings: MakeSettings) -> None:
    """The hint tells where it is found."""
    with pytest.raises(SettingsError, match="no school is named") as caught:
        make_settings(school="")
    assert "--school" in caught.value.hint


@pytest.mark.parametrize("token", ["abc\ndef", "abc\r\nX-Admin: 1", "abc def", "tökèn", "abc\x00", "abc\n"])
def test_a_token_that_would_break_a_header_is_refused_and_not_repeated(make_settings: MakeSettings, token: str) -> None:
    """Neither the message nor the hint holds any of it."""
    with pytest.raises(SettingsError) as caught:
        make_settings(token=Secret(token))
    assert "the token holds" in str(caught.value)
    for part in (token, "abc", "tökèn"):
        assert part not in f"{caught.value!r} {caught.value.hint}"


def test_an_account_that_no_request_can_hold_is_refused_and_not_repeated(make_settings: MakeSettings) -> None:
    """A cron job with another encoding than the terminal sets bytes that are not UTF-8."""
    bad = b"ge\xe4heim".decode(errors="surrogateescape")
    for name, account in (("e-mail", {"email": bad}), ("password", {"password": Secret(bad)})):
        with pytest.raises(SettingsError, match=f"^the {name} of the account is not UTF-8 text$") as caught:
            make_settings(**account)
        assert "heim" not in f"{caught.value!r} {caught.value.hint}"


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("concurrency", [1, MAX_CONCURRENCY], [0, -1, MAX_CONCURRENCY + 1]),
        ("rate", [0, 0.5, 1e6], [-0.1, float("inf"), float("nan")]),
        ("timeout", [0.1, 600], [0, -1, float("inf"), float("nan")]),
    ],
)
def test_numbers_have_bounds(make_settings: MakeSettings, name: str, good: list[float], bad: list[float]) -> None:
    """The refusal names the setting and its value."""
    for value in good:
        assert getattr(make_settings(**{name: value}), name) == value
    for value in bad:
        with pytest.raises(SettingsError, match=f"^{name} must be .* not {value}$"):
            make_settings(**{name: value})


def test_nothing_is_dangerous_by_default(make_settings: MakeSettings) -> None:
    """Nobody loses a role, nobody gets a mail, and no proxy is used, unless somebody says so."""
    settings = make_settings()
    assert (settings.existing, settings.lists, settings.notify) == (Existing.MERGE, Lists.ADD, False)
    assert (settings.proxy, settings.ca_file) == ("", None)
    assert not settings.token
    assert not settings.password


def test_the_vendors_hosts_go_by_their_names() -> None:
    """The profile says where an environment is; what else is said reaches the settings."""
    settings = Settings.at("staging", school="example", rate=7)
    assert (settings.base_url, settings.environment) == (load_profile().hosts["staging"], "staging")
    assert settings.rate == 7


def test_an_unknown_environment_comes_with_the_known_ones() -> None:
    """A typing error is mended without looking anything up."""
    with pytest.raises(SettingsError, match="there is no environment 'prod'") as caught:
        Settings.at("prod", school="example")
    assert "production" in caught.value.hint


@pytest.mark.parametrize(
    ("host", "here"),
    [("localhost", True), ("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("localhost.example.edu", False)],  # noqa: S104 - nothing is bound
)
def test_loopback_is_told_without_asking_the_network(host: str, here: object) -> None:
    """A name that only looks like this machine is another one."""
    assert is_loopback(host) is here

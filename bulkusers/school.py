"""One school's API, looked at with a token: what is where, in which shape, and what the profile says otherwise."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Final

from bulkusers.answers import LOG_IN
from bulkusers.api import Api
from bulkusers.brake import Brake
from bulkusers.directory import read_entries
from bulkusers.errors import ApiError, ShapeError
from bulkusers.fetch import Fetched, Fetcher
from bulkusers.findings import Finding, Level, Line, Survey, find_lists, find_shape, hours_left, judge_token
from bulkusers.models import Json, email_key
from bulkusers.profile import load_profile
from bulkusers.rules import Rules, is_same_record
from bulkusers.settings import Settings
from bulkusers.snapshot import Snapshot

PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.@")  # what cannot go wrong in a path, or hardly
COUNT: Final = re.compile("count|total|length|number", re.IGNORECASE)  # what a member that counts may be called
NOT_NOTICED: Final = "a run goes without, but ids that do not exist are not noticed"

Tell = Callable[[Finding], None]
"""Takes each finding as it is made."""


class School:
    """One school's API, looked at with a token."""

    def __init__(self, api: Api, settings: Settings, brake: Brake, tell: Tell) -> None:
        self._settings = settings
        self._profile = settings.profile
        self._rules = Rules(settings.profile, settings.school)
        self._api = Fetcher(api, self._rules, brake)
        self._tell = tell

    async def look(self) -> str:
        """Look at everything; return why that was not to be, if so."""
        with ExitStack() as stack:
            snapshot, refusal = await self._api.read_users()
            if snapshot is not None:
                stack.enter_context(snapshot)
            return await self._look(snapshot, refusal)

    async def _look(self, snapshot: Snapshot | None, refusal: ApiError | None) -> str:
        paths = self._profile.paths
        users = Fetched(200) if refusal is None else await self._api.fetch(paths.users)
        departments = await self._api.fetch(paths.departments)
        roles = await self._api.fetch_first(paths.roles)
        answers = (users, departments, roles)
        if not self._check_token(answers):
            return "the token is not accepted"
        if all(answer.status == 404 for answer in answers):
            self._note(
                Level.PROBLEM, "school", f"the API knows nothing of a school {self._settings.school} (404 everywhere)",
                "name the School Unique ID (Admin > Settings) with --school; is the base URL right? it ends in /api/v1",
            )  # fmt: skip
            return "the school was not found"
        if any(answer.good for answer in answers):
            self._note(Level.OK, "school", f"the API knows the school {self._settings.school}")
        else:
            message = "it cannot be told whether the school's id is right: nothing of it can be read"
            self._note(Level.WARNING, "school", message)
        survey = Survey(self._profile)
        if snapshot is None:
            await self._explain_users(refusal, users)
        else:
            await self._check_users(snapshot)
            for record in snapshot:
                survey(record)
            if survey.users:
                await self._check_user(snapshot)
        await self._check_documents(departments, roles, survey)
        if not survey.users:
            return "there are no users" if snapshot is not None else "the users could not be read"
        for findings in (survey.judge_fields(), survey.judge_words()):
            for finding in findings:
                self._tell(finding)
        return ""

    def _note(self, level: Level, check: str, message: str, hint: str = "", *lines: Line) -> None:
        self._tell(Finding(level, check, message, hint, lines))

    def _check_token(self, answers: Sequence[Fetched]) -> bool:
        """Tell whether the token is accepted: a 401 beside what is answered is a permission that the account lacks."""
        token = self._settings.token.reveal()
        refused = any(answer.status == 401 for answer in answers)
        if not refused or any(answer.good or answer.status == 403 for answer in answers):
            self._tell(judge_token(token, self._settings.email, time.time()))
            return True
        hours = hours_left(token, time.time())
        died = f"; it died {-hours:.0f} hours ago" if hours is not None and hours < 0 else ""
        self._note(Level.PROBLEM, "token", f"the API does not accept the token (401){died}", LOG_IN)
        return False

    async def _check_documents(self, departments: Fetched, roles: Fetched, survey: Survey) -> None:
        named, usual = self._profile.paths, load_profile().paths
        others = [usual.departments] if usual.departments != named.departments else []
        if not await self._moved("departments", departments, others, one=True):
            self._check_document("departments", departments, survey)
        if not await self._moved("roles", roles, [path for path in usual.roles if path not in named.roles]):
            self._check_document("roles", roles, survey)

    async def _moved(self, check: str, fetched: Fetched, others: list[str], *, one: bool = False) -> bool:
        """Tell whether something is not where the profile says, but at another path."""
        found = await self._api.find_path(check, others) if fetched.status == 404 else ""
        if found:
            self._note(
                Level.PROBLEM, check, f"{check}: nothing where the API profile says they are (404), but at {found}",
                "write the path into the API profile", ("paths", check, found if one else [found]),
            )  # fmt: skip
        return bool(found)

    def _check_document(self, check: str, fetched: Fetched, survey: Survey) -> None:
        entries = read_entries(fetched.said, check)
        if fetched.good and entries is not None:
            self._tell(survey.judge_ids(check, entries))
            return
        hint = f"`paths.{check}` in the API profile; {NOT_NOTICED}"
        if fetched.good:
            message = "the answer is no list of them"
        elif fetched.status == 404:
            message = "nothing where the API profile says they are (404)"
        else:
            why = "the account lacks the permission" if fetched.status in {401, 403} else "try again later"
            message, hint = f"cannot be read ({fetched.words})", f"{why}; {NOT_NOTICED}"
        self._note(Level.WARNING, check, f"{check}: {message}", hint)

    async def _explain_users(self, refusal: ApiError | None, fetched: Fetched) -> None:
        """Say why the users cannot be read, and what is to be done about it."""
        paths = self._profile.paths
        if fetched.status == 404:
            builtin = load_profile().paths
            guesses = [builtin.users, paths.create, paths.user.rpartition("/")[0], builtin.create]
            found = await self._api.find_path("users", [path for path in guesses if path and path != paths.users])
            if found:
                self._note(
                    Level.PROBLEM, "users", f"no users at {paths.users} (404), but at {found}",
                    "write the path into the API profile", ("paths", "users", found),
                )  # fmt: skip
            else:
                self._note(
                    Level.PROBLEM, "users", f"no users at {paths.users} (404), though the school is there",
                    "ask the vendor for the path, and write it into the API profile: `paths.users`",
                )  # fmt: skip
            return
        if fetched.status == 401:  # though the token is alive
            self._note(
                Level.PROBLEM, "users", "the API does not let this account read users (401)",
                "use an account whose role has the permission, and get its token with: bulkusers login",
            )  # fmt: skip
            return
        lines = tuple(find_shape(fetched.said, self._profile)) if isinstance(refusal, ShapeError) else ()
        hint = "write into the API profile what the answer has" if lines else getattr(refusal, "hint", "")
        self._note(Level.PROBLEM, "users", str(refusal), hint, *lines)

    async def _check_users(self, snapshot: Snapshot) -> None:
        shapes = {
            "map": "an object with one member for each",
            "list": "a list",
            "data": f"a list in {self._profile.records.data!r}",
        }
        pages = f", on {snapshot.pages} pages" if snapshot.pages > 1 else ""
        message = f"{len(snapshot):,} users, as {shapes.get(snapshot.shape, 'a list')}{pages}"
        if snapshot.total is not None:
            self._note(Level.OK, "users", f"{message}; as many as the API says that there are")
            return
        named = (
            find_lists((await self._api.fetch(self._profile.paths.users)).said)[1] if snapshot.shape == "data" else []
        )
        if counts := [name for name in named if COUNT.search(name)]:
            self._note(
                Level.WARNING, "users", f"{message}; no count that the API profile knows, but {counts[0]!r}",
                "write it into the API profile, else a list that is cut short would not be noticed",
                ("records", "counts", counts[:1]),
            )  # fmt: skip
            return
        self._note(
            Level.WARNING, "users", f"{message}; no count comes with it, so it cannot be seen whether that is all",
            "compare the number with the web app's; the API cutting its list short would not be noticed",
        )  # fmt: skip

    async def _check_user(self, snapshot: Snapshot) -> None:
        """See whether users are found by e-mail, and are what the list says, however their e-mail is written."""
        for email, listed in self._choose(snapshot):
            found = await self._find(email, listed)
            if found:
                self._note(Level.PROBLEM, "user", *found)
                return
        email, listed = next(self._choose(snapshot), ("", {}))
        if not email:
            self._note(Level.WARNING, "user", "no user has an e-mail with an @, so none was looked for")
            return
        other = "".join(letter.swapcase() if letter.isascii() else letter for letter in email)
        fetched = await self._api.fetch(self._profile.paths.user, other)
        if fetched.status == 404:
            self._note(
                Level.WARNING, "user", "a user is found by e-mail, but only in the very case of its letters",
                "write e-mails exactly as Coursedog has them (bulkusers export): else a second user is created",
            )  # fmt: skip
        elif isinstance(fetched.said, dict) and is_same_record(fetched.said, listed, self._rules):
            self._note(Level.OK, "user", "a user is found by e-mail in any case, and is the same as in the list")
        else:
            self._note(
                Level.WARNING, "user", f"a user's e-mail in another case is answered otherwise ({fetched.words})",
                "write e-mails exactly as Coursedog has them (bulkusers export)",
            )  # fmt: skip

    def _choose(self, snapshot: Snapshot) -> Iterator[tuple[str, Json]]:
        """Yield the first user, and the first whose e-mail is not plain."""
        name = self._profile.fields.email
        first = next((record for record in snapshot if "@" in record[name]), None)
        odd = (record for record in snapshot if "@" in record[name] and not PLAIN.issuperset(record[name].lower()))
        for record in (first, next(odd, None)):
            if record is not None:
                yield record[name], record

    async def _find(self, email: str, listed: Json) -> tuple[str, str] | None:
        """Return what is wrong with finding a user by e-mail, and what to do; None if nothing is."""
        path = self._profile.paths.user
        fetched = await self._api.fetch(path, email)
        said = fetched.said
        if fetched.status == 404:
            if (await self._api.fetch(path, email, encoded=False)).good:
                return (
                    "a user is found by e-mail only with a bare @ in the path, and not percent-encoded (%40)",
                    "a proxy between may be the cause: ask who runs it, or the vendor",
                )
            return (
                f"a user of the list is not found by e-mail at {path} (404)",
                "`paths.user` in the API profile is wrong: ask the vendor; until then a run cannot update anybody",
            )
        if not fetched.good:
            return f"a user cannot be read by e-mail ({fetched.words})", "try again; may this account read users?"
        if isinstance(said, dict) and is_same_record(said, listed, self._rules):
            return None
        if isinstance(said, dict) and email_key(str(said.get(self._profile.fields.email))) == email_key(email):
            return (
                f"a user's own record is not the same as in the list{self._differing(said, listed)}",
                "try again; if it stays so, use nothing that reads all users first (--changed-only, caps, export)",
            )
        return (
            f"what is answered at {path} is not that user's record",
            "`paths.user` in the API profile is wrong, or a record comes wrapped in something: ask the vendor",
        )

    def _differing(self, one: Json, other: Json) -> str:
        own = self._profile.records.own
        names = [name for name in {**one, **other} if name not in own and one.get(name) != other.get(name)]
        return f": {', '.join(sorted(names)[:5])} differ" if names else ""

"""The vendor's way: one row after another, create, and update who exists.

Source: the article "Uploading Users in Bulk via API", whose script it is in our own words: it "will read one row at a
time, first attempting to create a new user", and "if a user with that email address already exists, it attempts to
update that user with the latest information".
"""

import sys

import requests

from benchmarks.users import read_users

HEADERS = {"Authorization": "Bearer benchmark"}


def main(path: str, base: str) -> None:
    """Send a file."""
    created = updated = 0
    for user in read_users(path):
        payload = {**user, "disableRegistrationMail": True}
        response = requests.post(f"{base}/school/users", json=payload, headers=HEADERS, timeout=30)
        if response.status_code == 201:
            created += 1
            continue
        response = requests.put(f"{base}/school/users/{user['email']}", json=user, headers=HEADERS, timeout=30)
        response.raise_for_status()
        updated += 1
    print(f"{created} created, {updated} updated")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])

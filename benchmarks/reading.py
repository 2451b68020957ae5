"""Read and check a users file twice, as a run does: print the seconds of both passes, and of both together."""

import sys
import time

from bulkusers import open_source


def main(path: str) -> None:
    """Read a file."""
    began = time.perf_counter()
    with open_source(path) as source:
        judged = time.perf_counter()
        users = sum(1 for _ in source.users())
        ended = time.perf_counter()
    assert users == source.facts.rows
    print(judged - began, ended - judged, ended - began)


if __name__ == "__main__":
    main(sys.argv[1])

"""The package as other programs see it."""

import asyncio
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import bulkusers
from bulkusers.sandbox import Sandbox, serve

SANDBOX_STANDS_APART = "The sandbox imports nothing of the product, else a mistake would agree with itself"
ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


async def test_the_readmes_program_does_the_job(tmp_path: Path) -> None:
    """The five lines of the README, pointed at a sandbox, create a user and print what they say they print."""
    block = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    (tmp_path / "users.csv").write_text("First Name,Last Name,Email,Products\nA,B,a@example.edu,events\n")
    async with serve(Sandbox()) as sandbox:
        target = f'Settings(base_url="{sandbox.url}", school="{sandbox.school}", token=Secret("{sandbox.new_token()}"))'
        program, replaced = re.subn(r"Settings\.at\(.*\)", target, block[1])
        assert replaced == 1
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = await process.communicate()
    assert (out, err) == (b"1 0\n", b"")
    assert json.loads((tmp_path / "results.json").read_bytes())["counts"]["created"] == 1


def test_every_public_name_is_there() -> None:
    """What the package promises can be imported from it, and nothing that it does not promise."""
    for names in bulkusers.HOMES.values():
        for name in names.split():
            assert getattr(bulkusers, name).__class__ is not None
    assert not hasattr(bulkusers, "no_such_name")


def test_asking_for_help_loads_nothing_slow() -> None:
    """`--help` answers at once: what takes long to load is loaded by what needs it."""
    slow = {"aiohttp", "uvloop", "pydantic", "rich.console", "email_validator", "urllib.request", "configparser"}
    program = (
        "import sys; before = set(sys.modules); import bulkusers.cli.app; "  # coverage has loaded some already
        f"print({slow} & (sys.modules.keys() - before) or 'nothing')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "nothing\n"


def test_the_contracts_of_imports_know_every_module() -> None:
    """A new module is under the same rules as the others, because it must be named here."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    there = {
        f"bulkusers.{path.stem}" for path in (ROOT / "bulkusers").iterdir() if path.suffix == ".py" or path.is_dir()
    }
    there -= {"bulkusers.__init__", "bulkusers.__pycache__"}
    by_name = {contract["name"]: contract for contract in contracts}
    layers = by_name["Imports go down, never up or sideways"]["layers"]
    layered = {module for layer in layers for module in layer.split(" | ")}
    assert layered == there - {"bulkusers.sandbox"}
    assert set(by_name[SANDBOX_STANDS_APART]["forbidden_modules"]) == there - {"bulkusers.sandbox"}
    assert set(by_name["Only the client speaks HTTP"]["source_modules"]) == there - {
        "bulkusers.sandbox",
        "bulkusers.client",
    }

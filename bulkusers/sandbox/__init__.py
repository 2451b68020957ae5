"""A real HTTP server that stands in for Coursedog's API; it shares no code with what it is there to test."""

from bulkusers.sandbox.faults import Fault, load_faults
from bulkusers.sandbox.server import serve, serve_forever
from bulkusers.sandbox.service import Entry, Sandbox
from bulkusers.sandbox.switches import Switches

__all__ = ["Entry", "Fault", "Sandbox", "Switches", "load_faults", "serve", "serve_forever"]

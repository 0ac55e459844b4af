"""Fetching: data sets of the Hugging Face hub brought into a folder that `open_source` reads, when a user asks."""

from foreloom.data.fetch.entry import FetchEntry, choose
from foreloom.data.fetch.fetch import FetchReport, fetch
from foreloom.data.fetch.hub import Hub, HubRefused, HubUnreachable
from foreloom.data.fetch.plan import FetchPlan, plan_fetch
from foreloom.data.fetch.record import is_unfinished
from foreloom.data.fetch.verify import VerifyReport, verify

__all__ = [
    "FetchEntry",
    "FetchPlan",
    "FetchReport",
    "Hub",
    "HubRefused",
    "HubUnreachable",
    "VerifyReport",
    "choose",
    "fetch",
    "is_unfinished",
    "plan_fetch",
    "verify",
]

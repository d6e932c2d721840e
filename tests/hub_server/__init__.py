"""A Hub-compatible server for tests and demonstrations, for the real huggingface_hub client.

It serves on loopback only, keeps its repositories in memory, and knows four test tokens: ALICE may
write in alice, ALICE_READ is her read-only token, BOB is a stranger, CAROL is a member of acme.

It is not the Hub: it has no quotas or scans, no moves and no history squashing, serves no git clone
and no repository without a namespace, checks a card by a few rules only, and merges a pull request
without looking for conflicts. The texts of its errors are its own; codes and headers are not.
"""

from .access import ALICE, ALICE_READ, BOB, CAROL
from .faults import Fault, Record
from .server import Hub

__all__ = ["ALICE", "ALICE_READ", "BOB", "CAROL", "Fault", "Hub", "Record"]

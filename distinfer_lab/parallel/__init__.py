"""Nets on many cards: propagation of layouts, and one program for all cards. No cluster."""

from .card import CardProgram, CardView, Channels, run_card, shard_of, view_of
from .partition import partition
from .program import AllReduce, Collective, Compute, Held, Program, Redistribute
from .propagate import MODES, node_name, propagate
from .serial import assemble, cut, run_serial
from .sharding import NodeSharding, Sharding, same_layout

__all__ = [
    "MODES",
    "AllReduce",
    "CardProgram",
    "CardView",
    "Channels",
    "Collective",
    "Compute",
    "Held",
    "NodeSharding",
    "Program",
    "Redistribute",
    "Sharding",
    "assemble",
    "cut",
    "node_name",
    "partition",
    "propagate",
    "run_card",
    "run_serial",
    "same_layout",
    "shard_of",
    "view_of",
]

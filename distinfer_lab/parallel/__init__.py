"""Nets on many cards: propagation of layouts, and one program for all cards. No cluster."""

from .batches import check_rows_apart
from .card import CardRun, CardView, run_card, view_of
from .card_program import CardCounts, CardProgram
from .communication import Communication, Sent
from .partition import partition
from .program import AllReduce, Collective, Compute, Held, Program, Redistribute, ReduceScatter
from .propagate import MODES, node_name, propagate
from .redistribution import Hop, kind_of, normal_form, route, transfers
from .serial import run_serial
from .sharding import NodeSharding, Sharding, same_layout
from .whole import shard_inputs, shard_of, unshard

__all__ = [
    "MODES",
    "AllReduce",
    "CardCounts",
    "CardProgram",
    "CardRun",
    "CardView",
    "Collective",
    "Communication",
    "Compute",
    "Held",
    "Hop",
    "NodeSharding",
    "Program",
    "Redistribute",
    "ReduceScatter",
    "Sent",
    "Sharding",
    "check_rows_apart",
    "kind_of",
    "node_name",
    "normal_form",
    "partition",
    "propagate",
    "route",
    "run_card",
    "run_serial",
    "same_layout",
    "shard_inputs",
    "shard_of",
    "transfers",
    "unshard",
    "view_of",
]

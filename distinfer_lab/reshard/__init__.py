"""Reshard plans: pieces, senders, bounds, and the serial executor that defines a plan. No files, no cluster."""

from .classes import Holding
from .draft import Assessment, Cut, Draft
from .explain import CardCost, Explanation, FileCost, TensorCost, explain
from .placement import cheapest_placement
from .plan import ReshardPlan, TensorPlan
from .planner import plan_holdings, plan_reshard
from .schedule import MOST_SCHEDULED, Step, plan_steps, warnings_of
from .serial import execute
from .topology import Topology

__all__ = [
    "MOST_SCHEDULED",
    "Assessment",
    "CardCost",
    "Cut",
    "Draft",
    "Explanation",
    "FileCost",
    "Holding",
    "ReshardPlan",
    "Step",
    "TensorCost",
    "TensorPlan",
    "Topology",
    "cheapest_placement",
    "execute",
    "explain",
    "plan_holdings",
    "plan_reshard",
    "plan_steps",
    "warnings_of",
]

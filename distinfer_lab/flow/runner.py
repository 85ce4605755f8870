"""A net on a card group: where its values are, the programs made for it, and its latest run.

::

    runner = NetRunner(net, cards)
    placed = runner.placed(inputs)                    the net's values on the cards
    program = runner.program(key, make)               made once for each key
    report = runner.run(program, placed.placement, inputs)

Training, prediction and generation each bring their own program; how it runs is the same for all.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from ..cards import CardGroup, Placement, current_group
from ..errors import ContextError, Option
from ..net import Cell, Graph, Spec, Tensor, trace
from ..parallel import CardProgram, Sharding, propagate
from .context import ParallelContext, ParallelMode, parallel_context
from .placing import PlacedNet, place_initial, placed_net, remember, with_new_values
from .step_report import StepReport
from .strategies import loaded_operators

__all__ = ["NetRunner"]

MOST_PROGRAMS = 32
"""How many programs a net keeps: each length of a prompt makes one, on every card too."""


class NetRunner:
    """Runs programs of one net on a card group.

    Parameters
    ----------
    net
        The net.
    cards
        The group; None: at each call the current one.

    Attributes
    ----------
    last : StepReport, or None
        The latest run.
    """

    def __init__(self, net: Cell, cards: CardGroup | None = None) -> None:
        self.net = net
        self.last: StepReport | None = None
        self._cards = cards
        self._programs: OrderedDict[Hashable, CardProgram] = OrderedDict()

    @property
    def cards(self) -> CardGroup:
        """The group that the net runs on now.

        Raises
        ------
        ContextError
            If none was given, and there is no current one.
        """
        return current_group() if self._cards is None else self._cards

    def devices(self, context: ParallelContext) -> int:
        """How many cards a program of this net runs on.

        Raises
        ------
        ContextError
            If `device_num` is set to something else.
        """
        if context.parallel_mode == ParallelMode.STAND_ALONE:
            return 1
        cards = len(self.cards)
        if context.device_num is not None and context.device_num != cards:
            given, fitting = Option("device_num", context.device_num), Option("device_num", cards)
            raise ContextError(
                f"{given}, but the card group has {cards} cards; set {fitting}, or leave it out",
                given,
                fitting,
            )
        return cards

    def sharding(self, graph: Graph, context: ParallelContext, at_least: int = 1) -> Sharding:
        """How the context shards a graph; a net that is placed on several cards needs all of them."""
        return propagate(
            graph,
            max(self.devices(context), at_least),
            mode=context.parallel_mode,
            loaded=loaded_operators(context),
            stages=context.stages,
        )

    def placed(self, inputs: Sequence[Tensor | Spec]) -> PlacedNet:
        """Where the net's values are; on no card yet, they are placed with their initial values for such inputs."""
        placed = placed_net(self.net, self.cards)
        if placed is not None:
            return with_new_values(self.net, placed)
        graph = trace(self.net, *inputs)
        strategy = self.sharding(graph, parallel_context()).strategy.subset(graph.params)
        placed = place_initial(self.cards, self.net.parameters_dict(), strategy)
        remember(self.net, placed)
        return placed

    def program(self, key: Hashable, make: Callable[[], CardProgram]) -> CardProgram:
        """The program that was made for a key, or is made now; those used longest ago are forgotten."""
        if key not in self._programs:
            self._programs[key] = make()
            if len(self._programs) > MOST_PROGRAMS:
                self._programs.popitem(last=False)
        self._programs.move_to_end(key)
        return self._programs[key]

    def run(
        self,
        card_program: CardProgram,
        placement: Placement,
        inputs: Mapping[str, NDArray[Any]],
        *,
        training: bool = False,
        extra: Sequence[Placement] = (),
    ) -> StepReport:
        """Run a program once on the cards.

        Parameters
        ----------
        placement
            Holds the values that the program reads.
        inputs
            Whole, by their names in the program.
        training
            The program's updates come in force, on all cards or on none.
        extra
            Further placements whose values it reads, and may change in place.
        """
        shards = card_program.shard_inputs(inputs)
        found, counts = self.cards.run(
            card_program, placement, shards, card_program.fetched, training=training, extra=extra
        )
        outputs = {name: card_program.unshard(name, found) for name in card_program.program.outputs}
        self.last = StepReport(card_program, outputs, counts)
        return self.last

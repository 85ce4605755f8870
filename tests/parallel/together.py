"""Cards in threads of one process, each with its own steps: what the serial interpreter must equal."""

import functools
import queue
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from distinfer_lab.comm.traffic import goes_at_once, runs
from distinfer_lab.parallel import run_card, view_of

__all__ = ["Together", "run_together"]


class Together:
    """Channels between threads of one process."""

    def __init__(self, ranks: int) -> None:
        self.boxes = {(a, b): queue.SimpleQueue() for a in range(ranks) for b in range(ranks)}

    def of(self, rank: int) -> Any:
        boxes = self.boxes

        class Card:
            sent_bytes, waited_seconds = 0, 0.0

            def exchange(self, sends, receives):
                for peer, array in sends.items():
                    self.sent_bytes += array.nbytes
                    boxes[rank, peer].put(np.array(array))
                got = {peer: boxes[peer, rank].get(timeout=20) for peer in receives}
                assert {p: (a.shape, a.dtype) for p, a in got.items()} == dict(receives)
                return got

            def exchange_into(self, sends, outs):
                for peer, array in self.exchange(
                    sends, {p: (out.shape, out.dtype) for p, out in outs.items()}
                ).items():
                    outs[peer][...] = array

            def reduce_scatter(self, parts, group):
                mine = parts[group.index(rank)]
                sends = {peer: part for peer, part in zip(group, parts, strict=True) if peer != rank}
                got = self.exchange(sends, dict.fromkeys(sends, (mine.shape, mine.dtype))) | {rank: mine}
                total = sum((got[r] for r in sorted(group)[1:]), got[min(group)])
                return np.ascontiguousarray(total).reshape(mine.shape)

            def all_reduce(self, array, group):
                if goes_at_once(array.nbytes):
                    return self.reduce_scatter([array] * len(group), group)
                flat = array.reshape(-1)
                cut = [flat[a:b] for a, b in runs(flat.size, len(group))]
                own = self.reduce_scatter(cut, group)
                others = [r for r in group if r != rank]
                shapes = {r: (cut[group.index(r)].shape, own.dtype) for r in others}
                got = self.exchange(dict.fromkeys(others, own), shapes) | {rank: own}
                return np.concatenate([got[r] for r in group]).reshape(array.shape)

        return Card()


def run_together(program, params, inputs, count=lambda rank, nbytes: None):
    """Every card in a thread of its own; gives their `CardRun`s, which count all that each card sent."""
    together = Together(program.ranks)

    def card(rank):
        view = view_of(program, rank)
        channels = together.of(rank)
        counting = functools.partial(count, rank)
        done = run_card(program, view, params[rank], inputs[rank], channels, count=counting)
        assert sum(done.sent_bytes) == channels.sent_bytes
        return done

    with ThreadPoolExecutor(program.ranks) as pool:
        futures = [pool.submit(card, rank) for rank in range(program.ranks)]
        return [future.result(60) for future in futures]

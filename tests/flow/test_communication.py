"""What the cards send: predicted by the program, counted by them, collective by collective."""

import numpy as np
import pytest

from distinfer_lab.cards import CardGroup
from distinfer_lab.errors import ContextError
from distinfer_lab.flow import Model, set_auto_parallel_context
from distinfer_lab.net import Tensor

from ..cards.clusters import until
from ..trained import MLP, MLP_CUTS, SAMPLE, STRATEGY


@pytest.mark.parametrize(
    ("job", "cut", "count", "processes"),
    [
        *((MLP, MLP_CUTS[how], 8, False) for how in MLP_CUTS),
        (MLP, None, 4, True),
        (SAMPLE, STRATEGY, 8, False),
        (SAMPLE, ((1, 2), (2, 1)), 2, True),
    ],
)
@pytest.mark.parametrize("zero", [False, True], ids=["plain", "parallel optimizer"])
def test_cards_count_what_was_predicted(job, cut, count, processes, zero):
    """Training and predicting, every cut, in this process and in others."""
    net, loss, optimizer = job.make(cut)
    set_auto_parallel_context(
        parallel_mode="semi_auto_parallel", full_batch=True, enable_parallel_optimizer=zero
    )
    with CardGroup(count, processes=processes) as cards:
        model = Model(net, loss, optimizer, cards=cards)
        with pytest.raises(ContextError, match=r"nothing has run on the cards yet; call model\.predict"):
            _ = model.last
        model.train(1, job.batches()[:1])
        check(model)
        assert "AllReduce" in model.last.communication.by_kind()
        model.predict(Tensor(job.expected["predict/x"]))
        check(model)


def check(model):
    counted = model.last.communication
    assert counted == model.last.program.communication()
    assert counted.sent_bytes.tolist() == model.last.program.sent_bytes.tolist()


@pytest.mark.parametrize(("count", "processes"), [(4, False), (2, True)])
def test_cards_tell_what_they_did_when(count, processes):
    """One step of a card follows on the other; only collectives make it wait, and each has the card's bytes."""
    net, _, _ = SAMPLE.make(((1, count), (count, 1)))
    set_auto_parallel_context(parallel_mode="semi_auto_parallel", full_batch=True)
    with CardGroup(count, processes=processes) as cards:
        model = Model(net, cards=cards)

        def has_waited():
            model.predict(Tensor(np.ones((128, 96), np.float32)))
            return any(span.kind == "wait" for span in model.last.trace.spans)

        until(has_waited)  # now and then all that a card wants is there already
    trace = model.last.trace
    assert trace.cards == count
    assert min(span.start_seconds for span in trace.spans) == 0
    for card in range(count):
        spans = trace.of_card(card)
        assert [s.stop_seconds for s in spans[:-1]] == [s.start_seconds for s in spans[1:]]
        done = [(s.kind, s.name) for s in spans if s.kind != "wait"]
        assert ("compute", "MatMul of 'matmul_weight'") in done
        assert ("send", "ReduceScatter of MatMul of 'matmul_weight'") in done
        assert {s.name for s in spans if s.kind == "wait"} <= {
            name for kind, name in done if kind != "compute"
        }


def test_the_record_reads_as_a_small_table():
    """Kind, operator, calls and bytes; and it adds up over kinds and runs. The report of the step sums it up."""
    net, _, _ = SAMPLE.make(((1, 4), (4, 1)))
    set_auto_parallel_context(parallel_mode="semi_auto_parallel", full_batch=True)
    with CardGroup(4) as cards:
        model = Model(net, cards=cards)
        result = model.predict(Tensor(np.ones((128, 96), np.float32)))
    report, found = model.last, model.last.communication
    # 128 x 16 partial sums of float32, of which Neg wants a quarter on each card: it sends the three others.
    sent = 128 * 16 * 4 * 3 // 4
    assert repr(found).splitlines() == [
        "Communication of 1 collective on 4 cards, in bytes",
        f"  ReduceScatter  MatMul of 'matmul_weight'    1 call  at most {sent} from a card, {4 * sent} in all",
    ]
    assert found.by_kind() == {"ReduceScatter": (1, 4 * sent)}
    ((_, whole),) = report.outputs.items()
    np.testing.assert_array_equal(whole, result.asnumpy())
    first, *rest = repr(report).splitlines()
    assert first.startswith("StepReport of 4 cards, ")
    assert rest == ["  1 collective sent 24 KiB in all", "  gave [128, 16] float32"]
    twice = found.times(2)
    assert (twice.rows[0].calls, twice.sent_bytes.tolist()) == (2, [2 * sent] * 4)

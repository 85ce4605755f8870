"""Strategy files of the flow: MindSpore's own, and JSON where MindSpore cannot say a cut."""

import numpy as np
import pytest

import distinfer_lab as dl
from distinfer_lab.errors import CheckpointError
from distinfer_lab.net.models import NextTokenLoss

from ..transformers import net_of


def trained(cards, file):
    """A GPT-2 after one step, whose query, key and value are one fused weight."""
    dl.set_auto_parallel_context(
        parallel_mode="semi_auto_parallel", full_batch=True, strategy_ckpt_save_file=file
    )
    net = net_of("gpt2_tiny").shard_by(tp=2)
    model = dl.Model(net, NextTokenLoss(net), dl.nn.Momentum(net.trainable_params(), 0.1, 0.9), cards)
    ids = np.arange(13)[None]
    model.train(1, [(ids[:, :-1], ids[:, 1:])])
    return model


def test_a_fused_weight_trains_with_a_json_strategy_and_loads_by_it(tmp_path):
    """The same file serves training, opening the slices, and step 2; the prediction is that of the trained net."""
    file, ids = tmp_path / "strategy.json", dl.Tensor(np.arange(6)[None])
    with dl.CardGroup(2) as cards:
        model = trained(cards, file)
        files = model.save(tmp_path, "slices.ckpt", integrated=False)
        expected = model.predict(ids).asnumpy()
    dl.set_auto_parallel_context(strategy_ckpt_save_file="", strategy_ckpt_load_file=file)
    with dl.CardGroup(4) as cards:
        net = net_of("gpt2_tiny").shard_by(tp=4)
        model = dl.Model(net, cards=cards)
        dl.load_distributed_checkpoint(net, files, model.infer_predict_layout(ids))
        np.testing.assert_allclose(model.predict(ids).asnumpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_fused_weight_has_no_place_in_mindspores_file(tmp_path):
    """The error names the weight and the way out."""
    with dl.CardGroup(2) as cards:
        with pytest.raises(
            CheckpointError, match=r"c_attn\.weight: .* only express even sharding.* ends in \.json"
        ):
            trained(cards, tmp_path / "strategy.ckpt")

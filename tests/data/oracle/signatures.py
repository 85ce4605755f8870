"""Record the names of the arguments of what distinfer_lab has by MindSpore's names, in MindSpore's order.

Needs MindSpore, and writes `signatures.json` next to this file:

    pip install mindspore==2.10.0 && python tests/data/oracle/signatures.py
"""

import inspect
import json
from pathlib import Path

SPACES = {
    "mindspore": "Parameter Model load_checkpoint save_checkpoint load_param_into_net load_distributed_checkpoint "
    "merge_pipeline_strategys build_searched_strategy rank_list_for_transform transform_checkpoints",
    "mindspore.train": "CheckpointConfig ModelCheckpoint LossMonitor",
    "mindspore.common.initializer": "initializer",
    "mindspore.communication": "init get_rank get_group_size",
    "mindspore.nn": "Adam Momentum SGD Dense Embedding LayerNorm MSELoss SoftmaxCrossEntropyWithLogits Softmax ReLU "
    "Sigmoid Tanh SiLU GELU Flatten",
    "mindspore.ops": "Add BatchMatMul BiasAdd Div Exp Flatten Gather GeLU LayerNorm Log MatMul Mul Neg OneHot RealDiv "
    "ReduceMean ReduceSum ReLU Reshape RmsNorm Sigmoid Softmax SoftmaxCrossEntropyWithLogits Sqrt Square Sub Tanh "
    "TensorAdd Transpose",
}


def arguments(found):
    """The names of a call's arguments; optimizers hide theirs in a closure."""
    function = found.__init__ if inspect.isclass(found) else found
    names = [name for name in inspect.signature(function).parameters if name != "self"]
    if names == ["args", "kwargs"]:
        inner = [c.cell_contents for c in function.__closure__ or () if inspect.isfunction(c.cell_contents)]
        names = [name for name in inspect.signature(inner[0]).parameters if name != "self"]
    return names


if __name__ == "__main__":
    import importlib

    recorded = {}
    for space, names in SPACES.items():
        module = importlib.import_module(space)
        prefix = space.removeprefix("mindspore").removeprefix(".")
        prefix = f"{prefix}." if prefix in ("nn", "ops", "communication") else ""
        recorded |= {f"{prefix}{n}": arguments(getattr(module, n)) for n in names.split() if hasattr(module, n)}
    Path(__file__).with_suffix(".json").write_text(json.dumps(recorded, indent=1) + "\n")

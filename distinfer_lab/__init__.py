"""distinfer_lab: distributed inference, from sliced checkpoints to predictions on a card group.

::

    import distinfer_lab as dl

    with dl.CardGroup(4):
        layout = model.infer_predict_layout(dl.Tensor(data))
        dl.load_distributed_checkpoint(net, files, layout, "train_strategy.ckpt")
        result = model.predict(dl.Tensor(data))

The public names are those of `__init__.pyi`. Each is loaded when it is first used, so that
importing this package starts nothing and brings in neither Dask nor matplotlib.
"""

from importlib import import_module

import lazy_loader

from .display import load_later

load_later(lambda: import_module(".views", __name__).register())

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""The formats that are recognised and not read, with the way out of each: a row for every one.

::

    file     the first bytes, and the name where the bytes do not tell      b"GGUF"     "a GGUF file"
    folder   names that are in it                                          .metadata   "a torch DCP checkpoint"

The first row that fits counts: what is special stands before what is general. A format joins by a row.
"""

from typing import NamedTuple

from ..errors import Option

__all__ = ["FOREIGN", "STRATEGY_HEADS", "Foreign"]

TORCH_SAVE = (
    'where you trust it, convert it: python -c "import torch, safetensors.torch as s; s.save_file({k: v.clone() for '
    "k, v in torch.load('{path}', map_location='cpu', weights_only=True).items()}, 'model.safetensors')\""
)
STRATEGY_HEADS = (
    # current_stage, and the first operator or parameter with its name.
    rb"\x08[\x80-\xff]{0,4}[\x00-\x7f][\x12\x1a][\x80-\xff]{0,4}[\x00-\x7f]"
    rb"\x0a[\x80-\xff]?[\x00-\x7f][ -~]{1,500}\x12",
    rb"\s*\{[^{}]*\"(?:current_stage|parallel_layout_item|parallel_strategy_item)\"\s*:",
    rb"\s*\{\s*\"ranks\"\s*:\s*\d+,\s*\"(?:layouts|tensors)\"\s*:",  # JSON layouts
)
STRATEGY = "a strategy file, which says who holds what, not a checkpoint"
UNPACK = "unpack it, and open what is in it"
AGAIN = "copy or download it again"


class Foreign(NamedTuple):
    """A format that is recognised, not read."""

    what: str
    """As in "it is ..."."""
    advice: str
    """What to do; {path} stands for the file or folder, {name} for the name in a folder that was recognised."""
    head: bytes = b""
    """A pattern of the first bytes of a file; "" fits any."""
    name: str = ""
    """A pattern of a file's whole name; "" fits any."""
    inside: str = ""
    """A pattern of the path, within a folder, of something that shows what the folder is."""
    option: Option | None = None
    """What {option} in the advice stands for."""
    general: bool = False
    """Whether the head fits files of many formats: all others come first, our own too."""


FOREIGN = (
    # Folders. What is deeper is written with "/" and looked for one level down.
    Foreign(
        "a DeepSpeed checkpoint",
        "merge it: python {path}/zero_to_fp32.py {path} OUT --safe_serialization (the script is saved beside the "
        "checkpoint, or comes with deepspeed.utils), then open OUT",
        inside=r"zero_to_fp32\.py|(?:[^/]*/)?(?:bf16_)?zero_pp_rank_\d+_.*\.pt|(?:[^/]*/)?mp_rank_\d+_model_states\.pt",
    ),
    Foreign(
        "a Megatron-LM checkpoint",
        "export it to Hugging Face safetensors with Megatron Bridge (AutoBridge.export_ckpt) or Megatron-LM's "
        "tools/checkpoint/convert.py, then open that folder",
        inside=r"(?:[^/]*/)?mp_rank_\d+(?:_\d+)*|latest_checkpointed_iteration\.txt",
    ),
    Foreign(
        "a torch DCP checkpoint",
        "join it: python -m torch.distributed.checkpoint.format_utils dcp_to_torch {path} model.pt; then, where you "
        "trust it, save the tensors of model.pt by safetensors.torch.save_file",
        inside=r"(?:[^/]*/)?__\d+_\d+\.distcp|\.metadata",
    ),
    Foreign(
        "a checkpoint of FSDP shards by verl",
        "merge it: python -m verl.model_merger merge --backend fsdp --local_dir {path} --target_dir OUT, "
        "then open OUT",
        inside=r"model_world_size_\d+_rank_\d+\.pt",
    ),
    Foreign(
        "an Orbax checkpoint",
        "restore it in JAX (orbax.checkpoint.StandardCheckpointer().restore) and save the arrays by "
        "safetensors.flax.save_file, under names joined by dots",
        inside=r"_CHECKPOINT_METADATA|(?:[^/]*/)?(?:_METADATA|manifest\.ocdbt|ocdbt\.process_\d+)",
    ),
    Foreign(
        "the root of a model in a Hugging Face cache",
        "give the folder of one revision: {path}/{name}",
        inside=r"snapshots/[^/]+",
    ),
    Foreign(
        "a Hugging Face cache",
        "give one revision of a model: {path}/{name}/snapshots/...",
        inside=r"models--.+",
    ),
    Foreign(
        "a diffusers pipeline, which is several models",
        "give the folder of one of them, such as {path}/{name}",
        inside=r"(?:unet|transformer|vae|text_encoder|prior|decoder)/.*\.safetensors(?:\.index\.json)?",
    ),
    Foreign(
        "a PEFT adapter, not a whole model",
        "give its file, {path}/{name}, to reshard the adapter; to have the whole model, merge it by peft's "
        "merge_and_unload() and save_pretrained()",
        inside=r"adapter_model\.safetensors",
    ),
    Foreign(
        "a folder of one model by diffusers",
        "give its index or its one file: {path}/{name}",
        inside=r"diffusion_pytorch_model(?:\.[\w-]+)?\.safetensors(?:\.index(?:\.[\w-]+)?\.json)?",
    ),
    Foreign(
        "a folder of PyTorch weights",
        "where you trust them, let transformers convert them: AutoModel.from_pretrained('{path}')"
        ".save_pretrained('OUT'), then open OUT; of single files: safetensors.torch.save_file(torch.load(FILE, "
        "weights_only=True), 'model.safetensors')",
        inside=r".*\.(?:bin|pt|pth)(?:\.index\.json)?",
    ),
    Foreign(
        "a folder of Flax weights",
        "let transformers 4 convert them: AutoModel.from_pretrained('{path}', from_flax=True).save_pretrained('OUT')",
        inside=r"flax_model(?:-\d+-of-\d+)?\.msgpack(?:\.index\.json)?",
    ),
    Foreign(
        "a TensorFlow checkpoint",
        "read it by tensorflow.train.load_checkpoint, and save the arrays by safetensors.numpy.save_file",
        inside=r"saved_model\.pb|variables/.*\.index|checkpoint|.*\.data-\d+-of-\d+",
    ),
    Foreign(
        "a folder of GGUF files",
        "let transformers convert one: AutoModelForCausalLM.from_pretrained('{path}', gguf_file='{name}')"
        ".save_pretrained('OUT')",
        inside=r".*\.gguf",
    ),
    # Files.
    Foreign(
        "a Git LFS pointer, which stands for the file",
        "fetch the file itself: git lfs pull, in its repository",
        rb"version https://git-lfs",
    ),
    Foreign(
        "a web page that was saved under this name",
        "download the file itself (of Hugging Face: hf download, or a link with /resolve/ in place of /blob/)",
        rb"(?i)\s*(?:<!doctype html|<html|<\?xml)",
    ),
    Foreign(
        "an unfinished download",
        "let it finish, or download it again",
        name=r".*\.(?:incomplete|part|crdownload|aria2)",
    ),
    Foreign(
        "a part of a torch DCP checkpoint",
        "join the whole folder: python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER model.pt; "
        "then, where you trust it, save the tensors of model.pt by safetensors.torch.save_file",
        name=r".*\.distcp|\.metadata",
    ),
    Foreign(
        "an archive or a pickle, as torch.save writes them, which may run code when it is loaded",
        TORCH_SAVE,
        rb"PK\x03\x04.{26}[^/]{1,200}/(?:data\.pkl|\.format_version|\.storage_alignment|byteorder|version|data/)",
    ),
    Foreign(
        "an archive of numpy arrays (.npz)",
        "convert it: python -c \"import numpy, safetensors.numpy as s; s.save_file(dict(numpy.load('{path}')), "
        "'model.safetensors')\"",
        rb"PK\x03\x04.{26}[^\x00]{1,300}\.npy",
    ),
    Foreign(
        "an archive or a pickle, as torch.save writes them, which may run code when it is loaded",
        TORCH_SAVE,
        rb"PK\x03\x04|\x80[\x02-\x05]",
        r".*\.(?:pt|pth|bin|pkl|ckpt|pdparams)",
    ),
    Foreign("a zip archive", UNPACK, rb"PK\x03\x04|PK\x05\x06"),
    Foreign(
        "a pickle, which may run code when it is loaded",
        "where you trust it, load it by its own program, and save the tensors as safetensors",
        rb"\x80[\x02-\x05][\x95c}\]\x8a(]",
    ),
    Foreign(
        "a numpy array (.npy)",
        "convert it: python -c \"import numpy, safetensors.numpy as s; s.save_file({'array': numpy.load('{path}')}, "
        "'model.safetensors')\"",
        rb"\x93NUMPY",
    ),
    Foreign(
        "a GGUF file",
        "let transformers convert it: AutoModelForCausalLM.from_pretrained(FOLDER, gguf_file=NAME)"
        ".save_pretrained('OUT'), then open OUT",
        rb"GGUF|FUGG|lmgg|tjgg",
    ),
    Foreign(
        "an HDF5 file",
        "read it by h5py, and save the arrays by safetensors.numpy.save_file",
        rb"\x89HDF\r\n\x1a\n",
    ),
    Foreign("a gzip archive", f"{UNPACK}: gunzip, or tar -xzf", rb"\x1f\x8b"),
    Foreign("an xz archive", f"{UNPACK}: unxz, or tar -xJf", rb"\xfd7zXZ\x00"),
    Foreign("a bzip2 archive", f"{UNPACK}: bunzip2, or tar -xjf", rb"BZh\d1AY&SY"),
    Foreign("a zstd archive", f"{UNPACK}: unzstd, or tar --zstd -xf", rb"\x28\xb5\x2f\xfd"),
    Foreign("a 7-zip archive", UNPACK, rb"7z\xbc\xaf\x27\x1c"),
    Foreign("a tar archive (.nemo files are such)", f"{UNPACK}: tar -xf", rb".{257}ustar"),
    Foreign(
        "an ONNX model",
        "save its tensors: safetensors.numpy.save_file({i.name: onnx.numpy_helper.to_array(i) for i in "
        "onnx.load(FILE).graph.initializer}, 'model.safetensors')",
        name=r".*\.onnx",
    ),
    Foreign(
        "a MindIR graph, not a checkpoint",
        "give the checkpoint that it was exported from, or save the net by save_checkpoint",
        name=r".*\.mindir",
    ),
    Foreign(
        "Flax weights (.msgpack)",
        "load them by flax.serialization.msgpack_restore, and save the arrays by safetensors.flax.save_file",
        name=r".*\.msgpack",
    ),
    *(
        Foreign(
            STRATEGY,
            "give the folder of the slices as the checkpoint, and this file as {option}",
            head,
            option=Option("strategy"),
        )
        for head in STRATEGY_HEADS
    ),
    Foreign(
        "a JSON file, not a checkpoint",
        "give the weights that it belongs to: their folder, or a file that ends in .ckpt or .safetensors",
        rb"\s*[{\[]\s*[\"{}\[\]\d-][\t\r\n\x20-\xff]*\Z",
        general=True,
    ),
    Foreign(
        "a text file, not a checkpoint",
        "give the weights: a folder, or a file that ends in .ckpt or .safetensors",
        rb"[\t\r\n\x20-\x7e]{64,}\Z",
        general=True,
    ),
    Foreign("a file without content: all zeros", AGAIN, rb"\x00{64,}\Z", general=True),
)

"""One class per runtime: ``load`` reads the network, ``run`` takes it from NCHW array to array.

Every runtime is given the same C-contiguous NCHW array; what it does to the order of the values is
its own affair and is timed. Each module is imported when its runtime is asked for, so that a
process holds one runtime and nothing of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from workloads import ARGUMENTS, Workload

Run = Callable[[np.ndarray], np.ndarray]


def load_oxidet(workload: Workload, folder: Path, threads: int) -> Run:
    """A Module in evaluation mode, called: the first call makes the plan that later ones run."""
    import oxidet
    from oxidet import models, nn, weights

    oxidet.set_num_threads(threads)
    name, _, part = workload.model.partition(".")
    model = models.get_model(name, **ARGUMENTS.get(name, {}))
    model = (model.get_submodule(part) if part else model).eval()
    # Written by export.py from torch's network, or by zoo.py.
    files = [folder / f"{workload.model}{suffix}" for suffix in (".pth", ".npz")]
    model.load_state_dict(weights.load(next(file for file in files if file.exists())))
    model.compiled = True

    def run(x: np.ndarray) -> np.ndarray:
        with nn.no_grad():
            return np.asarray(model(x))

    return run


def load_onnxruntime(workload: Workload, folder: Path, threads: int) -> Run:
    """All graph optimizations, the default; threads spin a while after a call, also the default."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    path = folder / workload.key / "model.onnx"
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"input": x})[0]


def load_openvino(workload: Workload, folder: Path, threads: int, precision: str) -> Run:
    """Tuned for the latency of one request. Without `precision` it computes in bfloat16 where the
    processor has instructions for that."""
    import openvino

    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    if precision:
        config["INFERENCE_PRECISION_HINT"] = precision
    path = folder / workload.key / "openvino.xml"
    compiled = openvino.Core().compile_model(path, "CPU", config)
    request = compiled.create_infer_request()

    def run(x: np.ndarray) -> np.ndarray:
        results = request.infer([x], share_inputs=True, share_outputs=True)
        return np.array(next(iter(results.values())))

    return run


def load_ncnn(workload: Workload, folder: Path, threads: int, exact: bool) -> Run:
    """Packed layouts, Winograd and its matrix products are defaults. So is half precision, on x86
    for the weights of fully connected layers; `exact` turns it off. Batches run image by image."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    if exact:
        for option in ("packed", "storage", "arithmetic"):
            setattr(net.opt, f"use_fp16_{option}", False)
    path = folder / workload.key / "ncnn.param"
    net.load_param(str(path))
    net.load_model(str(path.with_suffix(".bin")))

    def run(x: np.ndarray) -> np.ndarray:
        results = []
        for image in x:
            extractor = net.create_extractor()
            extractor.input("in0", ncnn.Mat(image))
            results.append(np.array(extractor.extract("out0")[1]))
        return np.stack(results)

    return run


def load_mnn(workload: Workload, folder: Path, threads: int, precision: str) -> Run:
    """Precision "normal" is MNN's default; it is float32 on x86, as "high" is."""
    import MNN

    path = folder / workload.key / "mnn.mnn"
    config = {"backend": "CPU", "numThread": threads, "precision": precision}
    manager = MNN.nn.create_runtime_manager((config,))
    net = MNN.nn.load_module_from_file(str(path), ["input"], ["output"], runtime_manager=manager)
    form = MNN.expr.NCHW

    def run(x: np.ndarray) -> np.ndarray:
        value = MNN.expr.const(x, list(x.shape), form)
        result = net.forward([value])[0]
        return np.array(MNN.expr.convert(result, form).read())

    return run


def load_torch(workload: Workload, folder: Path, threads: int, order: str) -> Run:
    """Eager, in inference mode; weights are mapped from the file."""
    import torch
    from export import build

    torch.set_num_threads(threads)
    memory_format = getattr(torch, order)
    model = build(workload.model)
    model.load_state_dict(torch.load(folder / f"{workload.model}.pth", mmap=True), assign=True)
    model = model.to(memory_format=memory_format)

    def run(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(x).contiguous(memory_format=memory_format)).numpy()

    return run


RUNTIMES: dict[str, Callable[[Workload, Path, int], Run]] = {
    "oxidet": load_oxidet,
    "onnxruntime": load_onnxruntime,
    "OpenVINO f32": lambda *args: load_openvino(*args, precision="f32"),
    "OpenVINO default": lambda *args: load_openvino(*args, precision=""),
    "ncnn f32": lambda *args: load_ncnn(*args, exact=True),
    "ncnn default": lambda *args: load_ncnn(*args, exact=False),
    "MNN high": lambda *args: load_mnn(*args, precision="high"),
    "MNN default": lambda *args: load_mnn(*args, precision="normal"),
    "torch": lambda *args: load_torch(*args, order="contiguous_format"),
    "torch channels_last": lambda *args: load_torch(*args, order="channels_last"),
}

"""The ONNX files of an export in OpenVINO beside onnxruntime: the same classes on the test images, and how fast?

    pip install openvino
    python tests/benchmarks/openvino_latency.py --workdir=runs/uc_merced_64 --json=openvino.json

Times are medians on one thread of each runtime, which take turns. In OpenVINO a file has one program for one image and
one for 32; float32 is asked for, as it would take bfloat16 where the CPU has it.
"""

import argparse
import functools
import importlib.metadata
import json
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
from ml_collections import ConfigDict

from kdjax.deploy.export import onnx_graph, parity
from kdjax.runtime import files, host

FILES = ("student.onnx", "student.int8.onnx")
BATCHES = (1, 32)
HINTS = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}


def images_to_measure(workdir):
    """The test images of a run and their labels."""
    host.prepare()
    from kdjax.run.opening import open_for_command
    from kdjax.run.record import completed

    return open_for_command(
        ConfigDict(completed(files.read_json(workdir / "config.json", "a run"))), workdir
    ).dataset.test


def in_onnxruntime(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {onnx_graph.INPUT: images})[0]


def in_openvino(path):
    model = openvino.Core().compile_model(str(path), "CPU", HINTS)
    return lambda images: model({onnx_graph.INPUT: images})[onnx_graph.OUTPUT]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True, help="of a run with an export")
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args()
    split = images_to_measure(given.workdir)
    runtimes = {"onnxruntime": in_onnxruntime, "openvino": in_openvino}
    models = {
        (runtime, name): make(given.workdir / "export" / name) for runtime, make in runtimes.items() for name in FILES
    }
    logits = {key: parity.in_batches(model, split.images) for key, model in models.items()}
    rows = {
        key: {**parity.compare(said, logits["onnxruntime", "student.onnx"], split.labels), "latency_ms": {}}
        for key, said in logits.items()
    }
    for batch in BATCHES:
        images = np.resize(split.images[:batch], (batch, *split.images.shape[1:]))
        for key, taken in parity.latencies(
            {key: functools.partial(model, images) for key, model in models.items()}
        ).items():
            rows[key]["latency_ms"][str(batch)] = round(taken, 3)
    versions = {runtime: importlib.metadata.version(runtime) for runtime in runtimes}
    document = {
        "test_images": len(split),
        "versions": versions,
        "files": {" ".join(key): row for key, row in rows.items()},
    }
    print(json.dumps(document, indent=1))
    if given.json:
        given.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Peaks of a process that stores, compares and merges a base of 17 million parameters.

`python -m tests.scoring.merge_peaks FOLDER` prints them as JSON: bytes that belong to the process,
over those before. Pages of files that are only read do not count, as the system takes them back
when it needs them. Start it with MALLOC_MMAP_THRESHOLD_=65536, so that freed memory is given back.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lorascope.adapters.attach import attach, load_adapter, save_adapter
from lorascope.adapters.lora.kind import LoraConfig
from lorascope.config import QuantConfig, Storage
from lorascope.machine.devices import Device
from lorascope.quantizers.footprint import compared
from lorascope.quantizers.loading import load_base, load_exact, load_stored, quantize_base
from lorascope.scoring.merged_folder import write_shards
from lorascope.scoring.merging import merge

CPU = Device("cpu", "cpu")
QUANT = QuantConfig(name="int8", storage=Storage.int8)
SHARD_BYTES = 4 * 10**6


def anonymous_bytes() -> int:
    """Memory of this process that no file holds."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def peak_of(work: Callable[[], object]) -> int:
    """The most that `work` needs beside what there is, looked at every millisecond."""
    before, seen, over = anonymous_bytes(), [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.001):
            seen.append(anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    over.set()
    watcher.join()
    return max(seen) - before


def main(root: Path) -> dict[str, int]:
    config = LlamaConfig(
        vocab_size=512, hidden_size=512, intermediate_size=1408, num_hidden_layers=5,
        num_attention_heads=8, num_key_value_heads=8,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(root / "base")
    parameters = model.num_parameters()
    layer = sum(p.numel() for p in model.model.layers[0].parameters())
    names = [name for name, m in model.named_modules() if "proj" in name]
    del model
    stored, merged = root / "stored", root / "merged"
    merged.mkdir()
    storing = peak_of(lambda: quantize_base(root / "base", QUANT, CPU, stored))
    adapted = attach(load_base(stored, QUANT, CPU), LoraConfig(rank=8), 0)
    save_adapter(adapted, root / "adapter", "base")
    del adapted

    def merge_and_write() -> None:
        made = merge(load_stored(stored, QUANT), root / "adapter", torch.float32)
        write_shards(made.layers, merged, SHARD_BYTES)

    return {
        "parameters": parameters,
        "layer_parameters": layer,
        "storing": storing,
        "comparing": peak_of(lambda: compared(root / "base", stored, QUANT, names)),
        "merging": peak_of(merge_and_write),
        "exact": peak_of(lambda: load_adapter(load_exact(stored, QUANT, CPU), root / "adapter")),
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))

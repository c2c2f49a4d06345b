"""Which of a model's linear layers a library quantizes."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lorascope.adapters.class_head import head_names, in_head
from lorascope.config import QuantConfig
from lorascope.errors import ModelError


def quantizable_layers(
    model: PreTrainedModel, quant: QuantConfig, library: str
) -> dict[str, nn.Linear]:
    """The layers that `library` quantizes in the mode `quant`: torch's own Linear, but the
    head, which of classes may be several.

    Raises:
        ModelError: there are none, or some are Conv1D as GPT-2's: their weight lies transposed, so
            that errors and merges would not fit.
    """
    modules = dict(model.named_modules())
    transposed = [name for name, module in modules.items() if isinstance(module, Conv1D)]
    if transposed:
        raise ModelError(
            f"quant={quant.name}: {transposed[0]} and {len(transposed) - 1} more layers of this "
            f"model are Conv1D, which {library} stores transposed; 8 and fewer bits are not "
            "supported for it. Use quant=fp16, bf16 or fp32."
        )
    head, heads = model.get_output_embeddings(), head_names(model)
    linear = {
        name: module
        for name, module in modules.items()
        if type(module) is nn.Linear and module is not head and not in_head(name, heads)
    }
    if not linear:
        raise ModelError(
            f"quant={quant.name}: {library} quantizes no layer of {type(model).__name__}: it "
            "takes torch's own Linear, not subclasses of it, nor experts' 3-D parameters. The mode "
            "would weigh as much as 16 bits, here and wherever else the model is loaded. Leave it "
            "out of quant: use fp16, bf16 or fp32."
        )
    return linear

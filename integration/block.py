"""HuggingFace's DeepSeek-V3.2 decoder layer, built from a checkpoint and run with taps."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import DeepseekV32Config
from transformers.models.deepseek_v32.modeling_deepseek_v32 import DeepseekV32DecoderLayer, DeepseekV32RotaryEmbedding

from weights_tools import Checkpoint, CheckpointError

EXPERT_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
# What HuggingFace keeps in float32 when it loads the model in bfloat16 (`_keep_in_fp32_modules_strict` of its class).
FLOAT32_WEIGHT = "e_score_correction_bias"


@dataclass(frozen=True)
class Taps:
    """What one run of a block showed. B sequences of S tokens.

    Attributes:
        norm_input, norm_output: (B, S, index_head_dim), of the indexer's k_norm
        scores: (B, S, S) float32, the indexer's, masked where a key is later than its query
        chosen: (B, S, index_topk) indices of the keys that each query attends to
        output: (B, S, hidden_size), of the block
    """

    norm_input: torch.Tensor
    norm_output: torch.Tensor
    scores: torch.Tensor
    chosen: torch.Tensor
    output: torch.Tensor


class Block:
    """Decoder layer `number` of a DeepSeek-V3.2 checkpoint, in bfloat16, for inference. Reads no other tensors.

    Attributes:
        number: of the layer, from 0
        config: the model's
        layer: HuggingFace's module
    """

    def __init__(self, checkpoint: Checkpoint, number: int) -> None:
        """
        Raises:
            CheckpointError: it is of another model, has no such layer, or its tensors don't fit its config
        """
        self.number = number
        self.config = _load_config(checkpoint)
        if not 0 <= number < self.config.num_hidden_layers:
            raise CheckpointError(
                f"{checkpoint.folder}: layer must be 0 to {self.config.num_hidden_layers - 1} (num_hidden_layers),"
                f" but is {number}"
            )
        with torch.device("meta"):
            self.layer = DeepseekV32DecoderLayer(self.config, number)
        tensors = _stack_experts(checkpoint.tensors(f"model.layers.{number}"), self.config.n_routed_experts)
        state = {
            key: value.to(torch.float32 if key.endswith(FLOAT32_WEIGHT) else torch.bfloat16)
            for key, value in tensors.items()
        }
        try:
            self.layer.load_state_dict(state, assign=True)
        except RuntimeError as error:
            raise CheckpointError(f"{checkpoint.folder}: layer {number} does not fit config.json: {error}") from error
        self.layer.eval().requires_grad_(False)

    @torch.no_grad()
    def run(self, hidden_states: torch.Tensor) -> Taps:
        """One causal forward over `hidden_states` (B, S, hidden_size) bfloat16, from position 0."""
        batch, tokens, _ = hidden_states.shape
        positions = torch.arange(tokens).expand(batch, -1)
        later = torch.full((batch, 1, tokens, tokens), torch.finfo(hidden_states.dtype).min).triu(diagonal=1)
        indexer = self.layer.self_attn.indexer
        with _record_call(indexer.k_norm) as norm, _record_call(indexer) as choice, _RecordTopk(indexer) as topk:
            output = self.layer(
                hidden_states,
                attention_mask=later.to(hidden_states.dtype),
                position_ids=positions,
                position_embeddings=DeepseekV32RotaryEmbedding(self.config)(hidden_states, positions),
            )
        return Taps(norm["input"], norm["output"], topk.scores, choice["output"], output)


def _load_config(checkpoint: Checkpoint) -> DeepseekV32Config:
    model_type = checkpoint.config.get("model_type")
    if model_type != DeepseekV32Config.model_type:
        raise CheckpointError(
            f"{checkpoint.folder}/config.json: model_type must be {DeepseekV32Config.model_type!r},"
            f" but is {model_type!r}"
        )
    config = DeepseekV32Config.from_dict(checkpoint.config)
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    return config


def _stack_experts(tensors: dict[str, torch.Tensor], experts: int) -> dict[str, torch.Tensor]:
    """From one matrix an expert, as on the hub, to HuggingFace's stacks: gate and up in one, and down."""
    prefix = "mlp.experts."
    state = {key: value for key, value in tensors.items() if not key.startswith(prefix)}
    if len(state) == len(tensors):
        return state  # a dense layer
    try:
        gate, up, down = (
            torch.stack([tensors[f"{prefix}{expert}.{projection}.weight"] for expert in range(experts)])
            for projection in EXPERT_PROJECTIONS
        )
    except KeyError as error:
        raise CheckpointError(f"the layer lacks {error.args[0]}, though config.json says {experts} experts") from error
    return state | {f"{prefix}gate_up_proj": torch.cat((gate, up), dim=1), f"{prefix}down_proj": down}


@contextmanager
def _record_call(module: nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    record: dict[str, torch.Tensor] = {}

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: torch.Tensor) -> None:
        record["input"], record["output"] = next(iter((*args, *kwargs.values()))), output

    handle = module.register_forward_hook(hook, with_kwargs=True)
    try:
        yield record
    finally:
        handle.remove()


class _RecordTopk(TorchFunctionMode):
    """Keeps what `topk` is called on inside `indexer`: the scores, which it does not return."""

    scores: torch.Tensor

    def __init__(self, indexer: nn.Module) -> None:
        super().__init__()
        self._inside = False
        self._handles = [
            indexer.register_forward_pre_hook(lambda *_: self._set_inside(True)),
            indexer.register_forward_hook(lambda *_: self._set_inside(False)),
        ]

    def _set_inside(self, inside: bool) -> None:
        self._inside = inside

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._inside and func is torch.Tensor.topk:
            self.scores = args[0]
        return func(*args, **(kwargs or {}))

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()

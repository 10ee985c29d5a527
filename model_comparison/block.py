# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""HuggingFace's DeepSeek-V3 or V3.2 decoder layer, built from a checkpoint, and what is recorded as it runs."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode
from transformers import DeepseekV3Config, DeepseekV32Config
from transformers.activations import ACT2FN
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3DecoderLayer, DeepseekV3RotaryEmbedding
from transformers.models.deepseek_v32.modeling_deepseek_v32 import DeepseekV32DecoderLayer, DeepseekV32RotaryEmbedding

from weights_tools import Checkpoint, CheckpointError

CLASSES = {
    config.model_type: (config, layer, rotary)
    for config, layer, rotary in (
        (DeepseekV3Config, DeepseekV3DecoderLayer, DeepseekV3RotaryEmbedding),
        (DeepseekV32Config, DeepseekV32DecoderLayer, DeepseekV32RotaryEmbedding),
    )
}
# What HuggingFace keeps in float32 when it loads the model in bfloat16 (`_keep_in_fp32_modules_strict` of its classes).
FLOAT32_WEIGHT = "e_score_correction_bias"
EXPERTS = "mlp.experts."


@dataclass(frozen=True)
class NormActivation:
    """What a norm was given and gave: both (B, S, W) of the block's dtype."""

    input: torch.Tensor
    output: torch.Tensor


@dataclass(frozen=True)
class Choice:
    """What each of B x S tokens chose among N options, keys or experts: the highest scores of the highest groups.

    Attributes:
        scores: (B, S, N) float32; -inf for an option that the token must not choose
        chosen: (B, S, N) bool
        groups: into how many groups of N / groups options each the options fall, in order. A group's score is the sum
            of its two highest.
        chosen_groups: how many groups each token chose from
    """

    scores: torch.Tensor
    chosen: torch.Tensor
    groups: int = 1
    chosen_groups: int = 1


type Activation = NormActivation | Choice


@dataclass(frozen=True)
class Run:
    """What one run of a block computed.

    Attributes:
        activations: in order of execution: the norms asked for, by their module names, and, where the layer has them,
            "indexer" (which chooses the keys that a query attends to) and "router" (experts)
        output: (B, S, hidden_size), of the block
    """

    activations: dict[str, Activation]
    output: torch.Tensor

    def norm(self, name: str) -> NormActivation:
        activation = self.activations[name]
        assert isinstance(activation, NormActivation)
        return activation

    def choice(self, name: str) -> Choice:
        activation = self.activations[name]
        assert isinstance(activation, Choice)
        return activation


def short(name: str) -> str:
    """A norm's name without the modules that it is in."""
    return name.rsplit(".", 1)[-1]


class Block:
    """Decoder layer `number` of a DeepSeek-V3 or V3.2 checkpoint, for inference. Reads no other layer's tensors, and
    an expert's only when a token is routed to it.

    Attributes:
        checkpoint, number: as given; `number` counts from 0
        config: the model's
        layer: HuggingFace's module, with `LazyExperts` in place of its experts
        dtype: in which it computes
    """

    def __init__(self, checkpoint: Checkpoint, number: int, dtype: torch.dtype = torch.bfloat16) -> None:
        """
        Args:
            dtype: float32 computes on the same weights, rounded to bfloat16 first, as bfloat16 does
        Raises:
            CheckpointError: it is of another model, has no such layer, or its tensors don't fit its config
        """
        self.checkpoint = checkpoint
        self.number = number
        self.dtype = dtype
        self.config, layer_class, self._rotary = _load_config(checkpoint)
        if not 0 <= number < self.config.num_hidden_layers:
            raise CheckpointError(
                f"{checkpoint.folder}: layer must be 0 to {self.config.num_hidden_layers - 1} (num_hidden_layers),"
                f" but is {number}"
            )
        prefix = f"model.layers.{number}."
        names = [key.removeprefix(prefix) for key in checkpoint.keys(prefix)]
        if not names:
            raise CheckpointError(f"{checkpoint.folder}: holds no tensor of layer {number}: download its shards")
        with torch.device("meta"):
            self.layer = layer_class(self.config, number)
        if hasattr(self.layer.mlp, "experts"):
            self.layer.mlp.experts = LazyExperts(checkpoint, prefix + EXPERTS, self.config, dtype)
        state = {
            name: checkpoint.weight(prefix + name, torch.float32)
            if name.endswith(FLOAT32_WEIGHT)
            else checkpoint.weight(prefix + name).to(dtype)
            for name in names
            if not name.startswith(EXPERTS)
        }
        try:
            self.layer.load_state_dict(state, assign=True)
        except RuntimeError as error:
            details = " ".join(str(error).split())
            raise CheckpointError(f"{checkpoint.folder}: layer {number} does not fit config.json: {details}") from error
        self.layer.eval().requires_grad_(False)

    @torch.no_grad()
    def run(self, hidden_states: torch.Tensor, norms: Iterable[str] = ()) -> Run:
        """One causal forward from position 0.

        Args:
            hidden_states: (B, S, hidden_size) of the block's dtype
            norms: module names in `layer`, to be recorded
        """
        batch, tokens, _ = hidden_states.shape
        positions = torch.arange(tokens).expand(batch, -1)
        later = torch.ones(tokens, tokens, dtype=torch.bool).triu(diagonal=1)
        mask = torch.zeros(batch, 1, tokens, tokens, dtype=self.dtype).masked_fill(later, torch.finfo(self.dtype).min)
        activations: dict[str, Activation] = {}
        with ExitStack() as stack:
            topk = stack.enter_context(_LastTopk())

            def record(name: str, module: nn.Module, make: Callable[[torch.Tensor, Any], Activation]) -> None:
                def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
                    activations[name] = make((*args, *kwargs.values())[0], output)

                stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)

            for name in norms:
                record(name, self.layer.get_submodule(name), NormActivation)
            if indexer := getattr(self.layer.self_attn, "indexer", None):
                record("indexer", indexer, lambda _, keys: _keys_choice(topk.scores, keys, later))
            if router := getattr(self.layer.mlp, "gate", None):
                record("router", router, lambda _, output: self._experts_choice(output[0], output[2], batch))
            output = self.layer(
                hidden_states,
                attention_mask=mask,
                position_ids=positions,
                position_embeddings=self._rotary(self.config)(hidden_states, positions),
            )
        return Run(activations, output)

    def _experts_choice(self, logits: torch.Tensor, experts: torch.Tensor, batch: int) -> Choice:
        """Args: logits (B * S, N), experts (B * S, num_experts_per_tok)."""
        scores = logits.sigmoid() + self.layer.get_buffer("mlp.gate.e_score_correction_bias")
        chosen = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, experts, True)
        scores, chosen = (t.reshape(batch, -1, t.shape[-1]) for t in (scores, chosen))
        return Choice(scores, chosen, self.config.n_group, self.config.topk_group)


class LazyExperts(nn.Module):
    """In place of HuggingFace's module of all experts' matrices: the same bits as its eager forward, but a matrix is
    read when a token needs it and let go after. Has no parameters."""

    def __init__(self, checkpoint: Checkpoint, prefix: str, config: Any, dtype: torch.dtype) -> None:
        """
        Args:
            prefix: of the experts' keys: `prefix + "0.gate_proj.weight"` is the first
        Raises:
            CheckpointError: the checkpoint lacks a matrix of an expert
        """
        super().__init__()
        self.checkpoint = checkpoint
        self.prefix = prefix
        self.dtype = dtype
        self.act_fn = ACT2FN[config.hidden_act]
        up = (config.moe_intermediate_size, config.hidden_size)
        self._shapes = {"gate_proj": up, "up_proj": up, "down_proj": up[::-1]}
        for expert in range(config.n_routed_experts):
            for projection in self._shapes:
                if (key := self._key(expert, projection)) not in checkpoint:
                    raise CheckpointError(
                        f"{checkpoint.folder}: has no {key}, though config.json says {config.n_routed_experts} experts"
                    )

    def forward(
        self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        """
        Args:
            hidden_states: (T, hidden_size)
            top_k_index: (T, num_experts_per_tok) of each token's experts
            top_k_weights: likewise float32
        Returns: (T, hidden_size)
        Raises:
            CheckpointError: a matrix can't be read or has not the shape that config.json says
        """
        output = torch.zeros_like(hidden_states)
        for expert in sorted(set(top_k_index.flatten().tolist())):  # in HuggingFace's order: bfloat16 sums depend on it
            slot, token = torch.where(top_k_index.T.eq(expert))
            # One product with both matrices, as HuggingFace's: two smaller ones may add in another order.
            gate_and_up = torch.cat([self._matrix(expert, "gate_proj"), self._matrix(expert, "up_proj")])
            gate, up = linear(hidden_states[token], gate_and_up).chunk(2, dim=-1)
            result = linear(self.act_fn(gate) * up, self._matrix(expert, "down_proj"))
            output.index_add_(0, token, (result * top_k_weights[token, slot, None]).to(output.dtype))
        return output

    def _key(self, expert: int, projection: str) -> str:
        return f"{self.prefix}{expert}.{projection}.weight"

    def _matrix(self, expert: int, projection: str) -> torch.Tensor:
        key = self._key(expert, projection)
        matrix = self.checkpoint.weight(key).to(self.dtype)
        if matrix.shape != self._shapes[projection]:
            raise CheckpointError(
                f"{self.checkpoint.folder}: {key} must have shape {self._shapes[projection]} by config.json,"
                f" but has {tuple(matrix.shape)}"
            )
        return matrix


def _load_config(checkpoint: Checkpoint) -> tuple[Any, type[nn.Module], type[nn.Module]]:
    model_type = checkpoint.config.get("model_type")
    if model_type not in CLASSES:
        raise CheckpointError(
            f"{checkpoint.folder}/config.json: model_type must be {' or '.join(CLASSES)}, but is {model_type!r}"
        )
    config_class, layer_class, rotary_class = CLASSES[model_type]
    config = config_class.from_dict(checkpoint.config)
    config._attn_implementation = "eager"
    return config, layer_class, rotary_class


def _keys_choice(scores: torch.Tensor, keys: torch.Tensor, later: torch.Tensor) -> Choice:
    """Args: scores (B, S, S), keys (B, S, index_topk), later (S, S): which key is later than which query.

    A query that sees fewer keys than index_topk is given later ones, too, which the attention masks: they don't count
    as chosen."""
    chosen = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, keys.long(), True)
    return Choice(scores.masked_fill(later, -torch.inf), chosen & ~later)


class _LastTopk(TorchFunctionMode):
    """Keeps the tensor that `topk` was last called on: the indexer's scores, which its output does not hold."""

    scores: torch.Tensor

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.topk:
            self.scores = args[0]
        return func(*args, **(kwargs or {}))

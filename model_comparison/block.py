# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""One decoder layer of a causal language model, as transformers builds it from config.json, with its own weights."""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from model_comparison.activations import Run, recorded
from model_comparison.layer_weights import fill_layer
from model_comparison.meta_model import meta_model
from weights_tools import Checkpoint, CheckpointError
from weights_tools.checkpoint import CONFIG


class Block:
    """Decoder layer `number` of a checkpoint, for inference. Reads no other layer's tensors, and an expert's only when
    a token is routed to it.

    The model is built on the meta device, without memory for its weights, and the one layer is filled. What the model
    hands to its layers beside the hidden state (masks, rotary embeddings, token ids) is what its own forward hands to
    this one.

    Attributes:
        checkpoint, number: as given; `number` counts from 0
        config: the decoder's
        layer: transformers' module, with `ExpertMatrices` in place of its experts' parameters
        dtype: in which it computes
        hidden_shape: of a token's hidden state: (D,), or (streams, D) with hyper-connections
        routes_by_id: it has a router that chooses experts by the tokens' ids
    """

    def __init__(self, checkpoint: Checkpoint, number: int, dtype: torch.dtype = torch.bfloat16) -> None:
        """
        Args:
            dtype: float32 computes on the same weights, rounded to bfloat16 first, as bfloat16 does
        Raises:
            CheckpointError: transformers builds no such model, it has no such layer, the layer can't be run without the
                others, or its tensors don't fit its config
        """
        self.checkpoint = checkpoint
        self.number = number
        self.dtype = dtype
        try:
            model = meta_model(checkpoint.config)
        except CheckpointError as error:
            raise CheckpointError(f"{checkpoint.folder / CONFIG}: {error}") from error
        self._decoder, layers, embedding = _decoder(checkpoint, model)
        self.config = self._decoder.config
        if not 0 <= number < len(layers):
            raise CheckpointError(f"{checkpoint.folder}: layer must be 0 to {len(layers) - 1}, but is {number}")
        self.layer: nn.Module = layers[number]
        name = next(name for name, module in model.named_modules() if module is self.layer)
        fill_layer(model, name, checkpoint, dtype)
        self._decoder.layers = nn.ModuleList([self.layer])
        self._decoder.config = _of_one_layer(self.config, number)
        self._decoder.set_input_embeddings(_Zeros(embedding, dtype))
        for module in self._decoder.modules():
            _fill_buffers(self._decoder, module)
        self.layer.eval().requires_grad_(False)
        self.routes_by_id = any(type(module).__name__.endswith("HashRouter") for module in self.layer.modules())
        self.hidden_shape = tuple(self._call(torch.zeros(1, 1, dtype=torch.long))[0][0].shape[2:])

    @torch.no_grad()
    def run(self, hidden_states: torch.Tensor, norms: Iterable[str] = (), input_ids: torch.Tensor | None = None) -> Run:
        """One causal forward from position 0.

        Args:
            hidden_states: (B, S, *hidden_shape) of the block's dtype
            norms: module names in `layer`, to be recorded
            input_ids: (B, S) of the tokens, by which a hash router chooses experts; default: all 0
        Raises:
            CheckpointError: the layer needs what another one computes
        """
        batch, tokens = hidden_states.shape[:2]
        ids = torch.zeros(batch, tokens, dtype=torch.long) if input_ids is None else input_ids
        (_, *args), keywords = self._call(ids)
        try:
            with recorded(self.layer, norms, batch) as activations:
                output = self.layer(hidden_states, *args, **keywords)
        except ValueError as error:
            if type(error) is not ValueError:  # of our own classes
                raise
            raise self._not_alone(str(error)) from error
        return Run(activations, output[0] if isinstance(output, tuple) else output)

    def _call(self, input_ids: torch.Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments that the model's forward calls the layer with.

        Raises:
            CheckpointError: the model does not get as far without its other layers
        """

        def interrupt(_: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            raise _Called(args, keywords)

        hook = self.layer.register_forward_pre_hook(interrupt, with_kwargs=True)
        try:
            self._decoder(input_ids=input_ids, use_cache=False)
        except _Called as call:
            return call.args_of_layer, call.keywords
        except Exception as error:
            raise self._not_alone(str(error)) from error
        finally:
            hook.remove()
        raise self._not_alone("its model's forward does not call it")

    def _not_alone(self, reason: str) -> CheckpointError:
        reason = " ".join(reason.split())
        return CheckpointError(f"{self.checkpoint.folder}: layer {self.number} can't be run on its own: {reason}")


class _Called(Exception):  # noqa: N818  (no error: it ends a forward at the layer)
    def __init__(self, args_of_layer: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        super().__init__()
        self.args_of_layer = args_of_layer
        self.keywords = keywords


class _Zeros(nn.Module):
    """In place of an embedding, whose weights are not read: the hidden state that the layer gets is another anyway."""

    def __init__(self, embedding: nn.Embedding, dtype: torch.dtype) -> None:
        super().__init__()
        self.width = embedding.embedding_dim
        self.dtype = dtype

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return torch.zeros(*input_ids.shape, self.width, dtype=self.dtype)


def _decoder(checkpoint: Checkpoint, model: PreTrainedModel) -> tuple[PreTrainedModel, nn.ModuleList, nn.Embedding]:
    """The part of it that embeds tokens and runs decoder layers, these layers, and the embedding.

    Raises:
        CheckpointError: it has not that form
    """
    decoder: Any = model.get_decoder()  # type: ignore[no-untyped-call]
    name = type(model).__name__
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise CheckpointError(f"{checkpoint.folder}: {name} is not supported: its decoder has no list named layers")
    embedding = decoder.get_input_embeddings()
    if not isinstance(embedding, nn.Embedding):
        raise CheckpointError(f"{checkpoint.folder}: {name} is not supported: its decoder embeds no token ids")
    return decoder, layers, embedding


def _of_one_layer(config: PreTrainedConfig, number: int) -> PreTrainedConfig:
    """What the decoder's forward reads of its config when it has layer `number` alone: masks go by layers' types."""
    of_one = copy.copy(config)
    if isinstance(types := getattr(config, "layer_types", None), list):
        vars(of_one)["layer_types"] = [types[number]]  # not setattr, which checks it against num_hidden_layers
    return of_one


def _fill_buffers(model: PreTrainedModel, module: nn.Module) -> None:
    """Gives `module` the buffers that no checkpoint holds (rotary embeddings' frequencies), as transformers' own loader
    does: the model's `_init_weights` computes them."""
    names = [name for name in module._non_persistent_buffers_set if module.get_buffer(name).is_meta]
    for name in names:
        setattr(module, name, torch.empty_like(module.get_buffer(name), device="cpu"))
    if names:
        model._init_weights(module)  # type: ignore[no-untyped-call]

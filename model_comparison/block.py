# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""One decoder layer of a causal language model, as transformers builds it from config.json, with its own weights."""

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from model_comparison.activations import Run, is_hash_router, recorded
from model_comparison.layer_weights import fill_layer
from model_comparison.meta_model import meta_model
from weights_tools import Checkpoint, CheckpointError
from weights_tools.checkpoint import CONFIG


class Block:
    """Decoder layer `number` of a checkpoint, for inference. Reads no other layer's tensors, and, of experts that are
    stored one by one, an expert's only when a token is routed to it.

    The model is built on the meta device, without memory for its weights, and the one layer is filled. What the model
    hands to its layers beside the hidden state (masks, rotary embeddings, token ids) is what its own forward hands to
    this one, when the others pass on what they get.

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
        others = [layer for layer in layers if layer is not self.layer]
        self._decoder.set_input_embeddings(_Zeros(embedding, dtype))
        self._fill_buffers({module for layer in others for module in layer.modules()})
        fill_layer(model, name, checkpoint, dtype)
        self.layer.eval().requires_grad_(False)
        self.routes_by_id = any(map(is_hash_router, self.layer.modules()))
        self.hidden_shape = self._hidden_shape(others)

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
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            if type(error).__module__ != "builtins":  # of our own classes
                raise
            raise self._not_alone(str(error)) from error
        return Run(activations, output[0] if isinstance(output, tuple) else output)

    def _fill_buffers(self, others: Collection[nn.Module]) -> None:
        """Gives the decoder's modules but `others` the buffers that no checkpoint holds (rotary embeddings'
        frequencies), as transformers' own loader does: by the model's `_init_weights`. That initializes weights, too:
        they are filled after.

        Raises:
            CheckpointError: it left one out
        """
        modules = {name: module for name, module in self._decoder.named_modules() if module not in others}
        places = [(name, module, own) for name, module in modules.items() for own in module._non_persistent_buffers_set]
        for _, module, own in places:
            buffer = torch.empty_like(module.get_buffer(own), device="cpu")
            setattr(module, own, buffer.fill_(_unset(buffer)))
        for module in modules.values():
            self._decoder._init_weights(module)  # type: ignore[no-untyped-call]
        for name, module, own in places:
            buffer = module.get_buffer(own)
            if (buffer.isnan() | (buffer == _unset(buffer))).any():
                raise self._not_alone(f"transformers computes its {name}.{own} elsewhere")

    def _hidden_shape(self, others: Collection[nn.Module]) -> tuple[int, ...]:
        """Has the other layers pass on the hidden state, as the model takes it from a layer: alone, or with what the
        layer chose, which is nothing. Returns the shape of a token's hidden state.

        Raises:
            CheckpointError: the model takes neither
        """
        refused = self._not_alone("its model takes another thing than a hidden state from a layer")
        ids = torch.zeros(3, 2, dtype=torch.long)  # a tensor that is taken apart as a pair, or indexed, is seen
        for passed_on in (_alone, _with_no_choice):
            for layer in others:
                layer.forward = passed_on
            try:
                shape = tuple(self._call(ids)[0][0].shape)
            except CheckpointError as error:
                refused = error
                continue
            if len(shape) > 2 and shape[:2] == tuple(ids.shape):
                return shape[2:]
        raise refused

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
            if not call.args_of_layer:
                raise self._not_alone("its model does not hand it the hidden state as its first argument") from None
            return call.args_of_layer, call.keywords
        except Exception as error:
            raise self._not_alone(str(error)) from error
        finally:
            hook.remove()
        raise self._not_alone("its model's forward does not call it")

    def _not_alone(self, reason: str) -> CheckpointError:
        if "meta" in reason:  # torch's word for a tensor without memory
            reason = "its model computes with weights of its own before its layers"
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


def _alone(hidden_states: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
    return hidden_states


def _with_no_choice(hidden_states: torch.Tensor, *_: object, **__: object) -> tuple[torch.Tensor, None]:
    return hidden_states, None


def _unset(buffer: torch.Tensor) -> float:
    """What a buffer holds until it is computed."""
    return torch.nan if buffer.is_floating_point() else torch.iinfo(buffer.dtype).min

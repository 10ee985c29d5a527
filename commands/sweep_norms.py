# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Try every norm class and every small model of the installed transformers on the device, as docs/norm_classes.md."""

import inspect
import pkgutil
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import transformers
import typer
from loguru import logger
from torch import nn
from transformers import CONFIG_MAPPING, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

from tt_device import Arch, PlatformError, find_platform  # first, so that ttnn does not print its configuration

# isort: split
from common.command import ExitCode, start
from integration import Formula, FoundNorm, NormError, TtLayerNorm, TtRMSNorm, find_norms, replace_norms
from integration.recognize import MIN_EQUAL
from model_comparison.metrics import compare

WIDTH = 64
# What a norm class's __init__ is given, by the names of its parameters; what is not here has its default.
ARGUMENTS: dict[str, Any] = {
    **dict.fromkeys(
        ("hidden_size", "dim", "normalized_shape", "n", "size", "num_channels", "c_in", "feat_size"), WIDTH
    ),
    **dict.fromkeys(("num_features", "num_embeddings", "embedding_dim", "in_channels", "out_channels", "cin"), WIDTH),
    **dict.fromkeys(("cout", "head_dim", "group_size"), WIDTH),
    **dict.fromkeys(("num_groups", "num_heads", "groups"), 4),
    **dict.fromkeys(("norm_eps",), 1e-6),
    **dict.fromkeys(("kernel_size", "stride"), 1),
    "padding_idx": 0,
    "dropout_prob": 0.0,
}
# What is small in a small model's config, where the config has it as an integer.
SIZES = {
    64: """hidden_size d_model n_embd embed_dim dim embedding_size encoder_embed_dim decoder_embed_dim ffn_dim d_ff
        word_embed_proj_dim intermediate_size encoder_ffn_dim decoder_ffn_dim moe_intermediate_size n_inner
        shared_expert_intermediate_size shared_intermediate_size expert_ffn_hidden_size max_target_positions""",
    2: """num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_decoder_layers
        num_encoder_layers num_experts_per_tok linear_num_key_heads eos_token_id""",
    4: """num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads
        num_key_value_heads num_kv_heads linear_num_value_heads index_n_heads""",
    16: """head_dim d_kv qk_head_dim kv_lora_rank qk_rope_head_dim qk_nope_head_dim v_head_dim linear_key_head_dim
        linear_value_head_dim index_head_dim mamba_d_head mamba_d_state state_size num_mel_bins max_source_positions""",
    8: "n_routed_experts num_experts num_local_experts patch_size mamba_n_heads index_topk",
    1: "n_group topk_group first_k_dense_replace mamba_n_groups bos_token_id",
    128: "max_position_embeddings mamba_d_ssm",
    256: "vocab_size",
    32: "q_lora_rank image_size",
    0: "pad_token_id",
}
# What fits together in one family only.
FAMILY_SIZES: dict[str, dict[str, Any]] = {
    "deepseek_v2": {"n_group": 1, "topk_group": 1, "num_experts_per_tok": 2},
    "falcon_h1": {"mamba_rms_norm": True},
    "mamba2": {"num_heads": 8, "head_dim": 16, "n_groups": 1},
    "nemotron": {"num_key_value_heads": 4},
    "zamba2": {
        "attention_hidden_size": 128,
        "attention_head_dim": 32,
        "n_mamba_heads": 8,
        "mamba_headdim": 16,
        "mamba_ngroups": 1,
    },
}
MAX_PARAMETERS = 20_000_000
MAX_RELATIVE_NORM = 1e-4  # of a float32 model's output: the norms' own is 1e-7, and a few layers multiply it


@dataclass(frozen=True)
class Family:
    """How a small model ran with the norms that could be replaced."""

    name: str
    norms: int
    launches: int
    fallbacks: int  # calls of replaced norms that the kernels don't compute
    left: int  # calls of norms that they can't stand in for
    relative_norm: float


def norm_classes() -> dict[str, type[nn.Module]]:
    """By `module.name`: torch's modules and those of transformers' models whose name contains "norm"."""
    modules = [nn]
    for package in pkgutil.iter_modules(transformers.models.__path__):
        family = getattr(transformers.models, package.name, None)  # transformers imports it now
        for found in pkgutil.iter_modules(getattr(family, "__path__", ())):
            if found.name.startswith("modeling_"):
                try:
                    modules.append(getattr(family, found.name))
                except ImportError as error:  # a model that wants another package
                    logger.warning(f"{found.name}: {error}")
    classes = {}
    for module in modules:
        for name, cls in vars(module).items():
            if inspect.isclass(cls) and issubclass(cls, nn.Module) and "norm" in name.lower():
                classes[f"{cls.__module__.rpartition('.')[2].removeprefix('modeling_')}.{name}"] = cls
    return dict(sorted(classes.items()))


def build(cls: type[nn.Module]) -> nn.Module:
    """One of width `WIDTH`, or of its model's small config, with random weights.

    Raises:
        Exception: whatever its __init__ raises
    """
    arguments: dict[str, Any] = {}
    for parameter in inspect.signature(cls).parameters.values():
        if parameter.kind == parameter.VAR_KEYWORD and issubclass(cls, nn.LayerNorm):
            arguments.setdefault("normalized_shape", WIDTH)  # handed on
        elif parameter.name == "config":
            arguments["config"] = _config_of(cls, parameter.annotation)
        elif parameter.default in (parameter.empty, None) and parameter.name in ARGUMENTS:
            arguments[parameter.name] = ARGUMENTS[parameter.name]
    with warnings.catch_warnings(action="ignore"):
        return randomized(cls(**arguments))


def randomized[M: nn.Module](module: M) -> M:
    """With weights that no norm could be mistaken for another with."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        if parameter.ndim == 1:
            parameter.data.normal_(0.5, 0.5, generator=generator)
    return module.requires_grad_(False).eval()


def _config_of(cls: type[nn.Module], annotation: object) -> PreTrainedConfig:
    if not (inspect.isclass(annotation) and issubclass(annotation, PreTrainedConfig)):
        here = vars(sys.modules[cls.__module__]).values()
        configs = [each for each in here if inspect.isclass(each) and issubclass(each, PreTrainedConfig)]
        annotation = next(each for each in configs if each is not PreTrainedConfig)
    assert issubclass(annotation, PreTrainedConfig)
    return shrunk(annotation())


def shrunk(config: PreTrainedConfig) -> PreTrainedConfig:
    """`config` with `SIZES`, and two layers, or one of each kind that it has."""
    for size, names in SIZES.items():
        for name in names.split():
            if type(getattr(config, name, None)) is int:
                setattr(config, name, size)
    kinds = list(dict.fromkeys(vars(config).get("layer_types") or ()))
    if kinds:
        config.num_hidden_layers = max(2, len(kinds))
        config.layer_types = (kinds * 2)[: config.num_hidden_layers]
    for value in list(vars(config).values()):
        if isinstance(value, PreTrainedConfig):
            shrunk(value)
    return config


def small_model(family: str) -> PreTrainedModel:
    """In float32, with random weights.

    Raises:
        Exception: whatever transformers raises for sizes that don't fit together
    """
    config = shrunk(CONFIG_MAPPING[family]())
    for name, size in FAMILY_SIZES.get(family, {}).items():
        setattr(config, name, size)
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in _from_config(config).parameters())
    if parameters > MAX_PARAMETERS:
        raise ValueError(f"{parameters:,} parameters are no small model")
    torch.manual_seed(0)
    return randomized(_from_config(config))


def _from_config(config: PreTrainedConfig) -> PreTrainedModel:
    model = AutoModel.from_config(config)  # type: ignore[no-untyped-call]
    assert isinstance(model, PreTrainedModel)
    return model


def run_model(model: PreTrainedModel) -> torch.Tensor:
    """The first tensor that it gives for a few tokens, pixels or samples."""
    inputs = {
        "input_ids": torch.tensor([[3, 4, 5, 6]]),
        "pixel_values": torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32),
        "input_features": torch.linspace(-1, 1, 16 * 32).reshape(1, 16, 32),
        "input_values": torch.linspace(-1, 1, 4000).reshape(1, 4000),
    }
    arguments: dict[str, Any] = {model.main_input_name: inputs[model.main_input_name]}
    if model.config.is_encoder_decoder:
        arguments["decoder_input_ids"] = torch.tensor([[3, 4]])
    if hasattr(model.config, "use_cache"):
        arguments["use_cache"] = False
    torch.manual_seed(0)  # some draw masks or durations
    with torch.no_grad():
        output = model(**arguments)
    return next(value for value in output.values() if isinstance(value, torch.Tensor) and value.is_floating_point())


def try_family(model: PreTrainedModel, device: Any) -> Family:
    """Runs it as it is, then with its norms on the device, falling back where they can't."""
    expected = run_model(model)
    with replace_norms(model, device, fallback=True) as replaced:
        y = run_model(model)
        norms = replaced.norms.values()
        return Family(
            model.config.model_type,
            len(norms),
            sum(norm.launches for norm in norms),
            sum(norm.fallbacks for norm in norms),
            sum(replaced.left.values()),
            compare(y, expected).relative_norm,
        )


def outcome(module: nn.Module) -> tuple[str, FoundNorm]:
    """What `find_norms` says of it, as a row's heading, and what it found."""
    found = find_norms(nn.Sequential(module))[0]
    formula = found.formula
    if formula is None:
        return _general(found.supported), found
    gamma = f"gamma{' + 1' if formula.gamma_offset else ''}" if formula.gamma else None
    words = ["LayerNorm" if formula.subtract_mean else "RMSNorm", gamma, "beta" if formula.beta else None]
    words += ["the input's width"] if formula.width is None else []
    words += ["rounds 1 / rms"] if formula.round_inverse_rms else []
    words += ["rounds before gamma"] if formula.round_before_gamma else []
    words += ["float32 only"] if (torch.bfloat16, torch.bfloat16) not in formula.dtypes else []
    words += [f"without {', '.join(found.optional)}"] if found.optional else []
    return "yes: " + ", ".join(word for word in words if word), found


def _general(reason: str) -> str:
    """Without what differs from class to class."""
    for general in ("no: its forward fails", "no: its weights must have one shape", "no: it gives", "it holds"):
        if reason.startswith(general):
            return general
    return reason.partition(" with eps")[0]


def check_on_device(module: nn.Module, formula: Formula, device: Any) -> Iterator[str]:
    """Runs it in each type that it takes, and tells what is not as the original's."""
    x = torch.randn(3, formula.width or WIDTH, generator=torch.Generator().manual_seed(2)) + 0.5
    for dtype in (torch.bfloat16, torch.float32):
        if (dtype, dtype) not in formula.dtypes:
            continue
        original = module.to(dtype)
        expected = original(x.to(dtype))
        replacement = (TtLayerNorm if formula.subtract_mean else TtRMSNorm).from_torch(original, device=device)
        errors = compare(replacement(x.to(dtype)), expected)
        if errors.relative_norm > (2.0**-8 if dtype == torch.bfloat16 else 1e-6) or (
            dtype == torch.bfloat16 and errors.equal < MIN_EQUAL
        ):
            yield f"{dtype}: {errors}"


def print_classes(device: Any) -> int:
    """Prints the table of all classes. Returns how many of the recognized are wrong on the device."""
    wrong = 0
    rows: dict[str, list[str]] = defaultdict(list)
    for name, cls in norm_classes().items():
        try:
            module = build(cls)
        except Exception as error:
            logger.info(f"{name} can't be built alone: {error}")
            rows["not built alone: it wants more than sizes"].append(name)
            continue
        heading, found = outcome(module)
        faults = list(check_on_device(module, found.formula, device)) if found.formula else []
        for fault in faults:
            logger.error(f"{name}: {fault}")
        wrong += bool(faults)
        rows["WRONG" if faults else heading].append(name)
    print("| replaced | classes | |\n|---|---|---|")
    for heading, names in sorted(rows.items(), key=lambda row: (not row[0].startswith("yes"), -len(row[1]))):
        print(f"| {heading} | {len(names)} | {', '.join(names)} |", flush=True)
    return wrong


def print_families(families: Iterable[str], device: Any) -> int:
    """Prints the table of those that can be made small. Returns how many of them fail with their norms replaced."""
    wrong = 0
    print("| model | norms | launches | fallbacks | left | relative norm |\n|---|---|---|---|---|---|")
    for name in families:
        try:
            model = small_model(name)
            run_model(model)
        except Exception as error:
            logger.info(f"{name} can't be made small: {error}")
            continue
        try:
            family = try_family(model, device)
        except NormError:
            logger.info(f"{name} has no norm")
            continue
        except Exception as error:
            logger.exception(error)
            print(f"| {name} | | | | | CRASHED |", flush=True)
            wrong += 1
            continue
        wrong += not family.relative_norm <= MAX_RELATIVE_NORM
        print(
            f"| {name} | {family.norms} | {family.launches} | {family.fallbacks} | {family.left}"
            f" | {family.relative_norm:.1e} |",
            flush=True,
        )
    return wrong


app = typer.Typer(add_completion=False)


@app.command()
def main(
    arch: Annotated[Arch | None, typer.Option(help="Default: what the device is; blackhole for wolfpine.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that the device may be silent.")] = 300,
) -> None:
    """Print two Markdown tables; takes half an hour on ttsim. Exit code 1: a class is wrong, or a model fails."""
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        with find_platform(arch).open(timeout) as device:
            wrong = print_classes(device)
            print()
            wrong += print_families(MODEL_MAPPING_NAMES, device)
    except PlatformError as error:
        logger.error(f"error: {error}")
        raise typer.Exit(ExitCode.NO_DEVICE) from error
    if wrong:
        raise typer.Exit(ExitCode.FAILS)


def run() -> None:
    """The command."""
    start(app, ends_at_interrupt=True)


if __name__ == "__main__":
    run()

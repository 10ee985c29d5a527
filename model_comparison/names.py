# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Short names of what was compared."""

from collections.abc import Iterable


def short_names(names: Iterable[str]) -> dict[str, str]:
    """For each dotted name, its shortest end that no other of them has: "q_a_layernorm" of "self_attn.q_a_layernorm".
    A number is no name of its own: of a list's element it is "input_layernorm.0"."""
    parts = {name: name.split(".") for name in names}

    def end(name: str, length: int) -> list[str]:
        return parts[name][-length:]

    result = {}
    for name, own in parts.items():
        length = 1
        while length < len(own) and (
            own[-length].split(" ")[0].isdigit()
            or any(end(name, length) == end(other, length) for other in parts if other != name)
        ):
            length += 1
        result[name] = ".".join(own[-length:])
    return result

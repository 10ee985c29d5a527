# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Chips that plans are made for, without a device."""

from dataclasses import replace

from micro_ops.layernorm import cost
from micro_ops.layernorm.plan import Chip

L1_BYTES = 1_432_800  # what ttnn leaves of a Wormhole core's; a Blackhole core has more
# What ttnn says of a Blackhole with all cores and of a Wormhole
BLACKHOLE_BANKS = ((0, 0), (0, 8), (0, 2), (0, 5), (7, 0), (7, 8), (7, 2), (7, 5))
WORMHOLE_BANKS = (
    *((3, 8), (0, 0), (0, 4), (0, 5), (4, 0), (7, 8)),
    *((4, 1), (4, 7), (4, 6), (4, 2), (4, 4), (4, 5)),
)
BLACKHOLE = Chip(
    costs=cost.BLACKHOLE,
    l1_bytes=L1_BYTES,
    origin=(0, 0),
    noc_x=(*range(1, 8), *range(10, 16)),  # between lies what is no Tensix core
    noc_y=tuple(range(2, 12)),
    max_cores=130,
    bank_cores=BLACKHOLE_BANKS,
)
HARVESTED = replace(BLACKHOLE, noc_x=(*range(1, 8), *range(10, 14)), max_cores=110)  # two columns fewer
ONE_CORE = replace(BLACKHOLE, noc_x=(1,), noc_y=(2,), max_cores=1)
WORMHOLE = Chip(cost.WORMHOLE, L1_BYTES, (0, 0), tuple(range(18, 26)), tuple(range(18, 27)), 72, WORMHOLE_BANKS)

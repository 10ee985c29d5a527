// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// A kernel that ttsim ends the process for: it reads from an address that its target is not aligned with.
#include "api/dataflow/dataflow_api.h"

void kernel_main() {
    constexpr uint32_t anywhere = 0x20000;
    noc_async_read(get_noc_addr(anywhere + 3), anywhere + 64, 64);
    noc_async_read_barrier();
}

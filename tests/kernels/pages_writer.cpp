// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// Writer (BRISC) of the tests of several cores and of hung devices.
//
// CB contract: pushes and pops `pages` pages of CB 0, one after another; if `hangs`, waits for one more, which no kernel
// pushes.
#include "api/dataflow/dataflow_api.h"

void kernel_main() {
    const uint32_t pages = get_arg_val<uint32_t>(0);
    const bool hangs = get_arg_val<uint32_t>(1);
    for (uint32_t page = 0; page < pages; ++page) {
        cb_reserve_back(0, 1);
        cb_push_back(0, 1);
        cb_wait_front(0, 1);
        cb_pop_front(0, 1);
    }
    if (hangs) {
        cb_wait_front(0, 1);
    }
}

// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// Reader (NCRISC) of the SFPU tests: DRAM pages, one tile each, into one CB.
//
// CB contract: pushes cb_in, `pages` pages, one after another -> sfpu_compute.cpp
#include <cstdint>

#include "api/dataflow/dataflow_api.h"

void kernel_main() {
    constexpr uint32_t cb_in = 0;
    constexpr uint32_t page_size = get_compile_time_arg_val(0);
    const uint32_t pages = get_arg_val<uint32_t>(1);
    const auto input = TensorAccessor(TensorAccessorArgs<1>(), get_arg_val<uint32_t>(0), page_size);
    for (uint32_t page = 0; page < pages; ++page) {
        cb_reserve_back(cb_in, 1);
        noc_async_read_page(page, input, get_write_ptr(cb_in));
        noc_async_read_barrier();
        cb_push_back(cb_in, 1);
    }
}

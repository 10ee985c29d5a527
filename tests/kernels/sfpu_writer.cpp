// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// Writer (BRISC) of the SFPU tests: pages of one CB, one tile each, to DRAM.
//
// CB contract: pops cb_out, `pages` pages, one after another <- sfpu_compute.cpp
#include <cstdint>

#include "api/dataflow/dataflow_api.h"

void kernel_main() {
    constexpr uint32_t cb_out = 16;
    constexpr uint32_t page_size = get_compile_time_arg_val(0);
    const uint32_t pages = get_arg_val<uint32_t>(1);
    const auto output = TensorAccessor(TensorAccessorArgs<1>(), get_arg_val<uint32_t>(0), page_size);
    for (uint32_t page = 0; page < pages; ++page) {
        cb_wait_front(cb_out, 1);
        noc_async_write_page(page, output, get_read_ptr(cb_out));
        noc_async_write_barrier();
        cb_pop_front(cb_out, 1);
    }
}

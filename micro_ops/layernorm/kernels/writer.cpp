// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// Writer (BRISC): row-major sticks from L1 to DRAM.
//
// CB contract, in pages of a tile's 1,024 elements:
//   pops  cb_output  for each step of a group of rows, a piece of each row, one behind the other  <- compute
//
// A step's last tile may end in garbage, where its pieces are no whole tiles.
#include <cstdint>

#include "api/dataflow/dataflow_api.h"
#include "agreement.h"

constexpr uint32_t cb_output = get_named_compile_time_arg_val("cb_output");
constexpr uint32_t output_piece = get_named_compile_time_arg_val("output_piece");  // bytes
constexpr uint32_t tile_size = get_named_compile_time_arg_val("tile_size");        // bytes
constexpr uint32_t group_rows = get_named_compile_time_arg_val("group_rows");

void kernel_main() {
    const uint32_t rows = RUNTIME_ARG(rows);
    const uint32_t steps = RUNTIME_ARG(steps);
    const uint32_t output_stick = RUNTIME_ARG(output_stick);

    constexpr auto output_args = TensorAccessorArgs<0>();
    const auto output = TensorAccessor(output_args, RUNTIME_ARG(output_address), output_stick);

    for (uint32_t first = 0; first < rows; first += group_rows) {
        const uint32_t count = rows - first < group_rows ? rows - first : group_rows;
        const uint32_t tiles = (count * output_piece + tile_size - 1) / tile_size;
        ASSERT(get_local_cb_interface(cb_output).fifo_page_size == tile_size);
        ASSERT(get_local_cb_interface(cb_output).fifo_size % (tiles * tile_size) == 0);  // a step's tiles lie in a row
        uint64_t sticks[group_rows];
        for (uint32_t row = 0; row < count; ++row) {
            sticks[row] = output.get_noc_addr(first + row);
        }
        uint32_t left = output_stick;
        for (uint32_t step = 0; step < steps; ++step) {
            const uint32_t size = left < output_piece ? left : output_piece;
            left -= size;
            cb_wait_front(cb_output, tiles);
            uint32_t address = get_read_ptr(cb_output);
            for (uint32_t row = 0; row < count; ++row) {
                noc_async_write(address, sticks[row], size);
                sticks[row] += size;
                address += output_piece;
            }
            noc_async_writes_flushed();
            cb_pop_front(cb_output, tiles);
        }
        ASSERT(left == 0);
    }
    noc_async_write_barrier();
}

// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// Writer (BRISC): row-major sticks from L1 to DRAM. Before that, gamma and beta into L1, since it has time: there is no
// result yet. Where cores send gamma and beta to one another, the reader reads them.
//
// CB contract:
//   pushes  cb_gamma, cb_beta  in pages of one piece (compute.cpp), `own_steps` once, not padded                  -> compute
//   pops    cb_output          in pages of a tile's 1,024 elements: for each of this core's steps of a group of
//                              rows, a piece of each row, one behind the other                                    <- compute
//
// A step's last tile may end in garbage, where its pieces are no whole tiles. So may the last page of gamma and beta: it
// reaches columns of the result that are never written.
//
// Budget: transaction ids 1 to 4 of 15 (parts of gamma and beta).
#include "sticks.h"

constexpr uint32_t cb_output = get_named_compile_time_arg_val("cb_output");
constexpr uint32_t output_piece = get_named_compile_time_arg_val("output_piece");  // bytes
constexpr uint32_t tile_size = get_named_compile_time_arg_val("tile_size");        // bytes
constexpr uint32_t group_rows = get_named_compile_time_arg_val("group_rows");
constexpr uint32_t piece_elements = get_named_compile_time_arg_val("piece_elements");
constexpr bool reads_weights = !reader_reads_weights && (has_gamma || has_beta);
constexpr uint32_t weights_trid = 1;

void kernel_main() {
    const uint32_t first_step = RUNTIME_ARG(first_step);
    const uint32_t own_steps = RUNTIME_ARG(own_steps);
    constexpr auto output_args = TensorAccessorArgs<0>();

    if constexpr (has_gamma) {
        assert_cb(cb_gamma, RUNTIME_ARG(weight_pages), gamma_piece);
    }
    if constexpr (has_beta) {
        assert_cb(cb_beta, RUNTIME_ARG(weight_pages), beta_piece);
    }
    if constexpr (reads_weights) {
        constexpr auto gamma_args = TensorAccessorArgs<output_args.next_compile_time_args_offset()>();
        constexpr auto beta_args = TensorAccessorArgs<gamma_args.next_compile_time_args_offset()>();
        const uint32_t part_pages = (own_steps + max_parts - 1) / max_parts;
        read_weights<weights_trid>(
            gamma_args, beta_args, RUNTIME_ARG(gamma_address), RUNTIME_ARG(beta_address), first_step, own_steps,
            RUNTIME_ARG(own_columns), part_pages, true, true);
        for_each_part(own_steps, part_pages, [&](uint32_t part, uint32_t pages) __attribute__((always_inline)) {
            noc_async_read_barrier_with_trid(weights_trid + part);
            if constexpr (has_gamma) {
                cb_push_back(cb_gamma, pages);
            }
            if constexpr (has_beta) {
                cb_push_back(cb_beta, pages);
            }
        });
        noc_async_read_set_trid(0);
    }

    const uint32_t rows = RUNTIME_ARG(rows);
    const uint32_t first_row = RUNTIME_ARG(first_row);
    const uint32_t group_stride = RUNTIME_ARG(group_stride);  // rows from the first of a group to the first of the next
    const uint32_t output_size = RUNTIME_ARG(own_columns) * (output_piece / piece_elements);  // of this core's columns
    const auto output = TensorAccessor(output_args, RUNTIME_ARG(output_address), RUNTIME_ARG(output_stick));

    uint32_t left_rows = rows;
    for (uint32_t first = first_row; left_rows > 0; first += group_stride) {
        const uint32_t count = left_rows < group_rows ? left_rows : group_rows;
        left_rows -= count;
        const uint32_t tiles = (count * output_piece + tile_size - 1) / tile_size;
        ASSERT(get_local_cb_interface(cb_output).fifo_page_size == tile_size);
        ASSERT(get_local_cb_interface(cb_output).fifo_size % (tiles * tile_size) == 0);  // a step's tiles lie in a row
        uint64_t sticks[group_rows];
        for (uint32_t row = 0; row < count; ++row) {
            sticks[row] = output.get_noc_addr(first + row, first_step * output_piece);
        }
        uint32_t left = output_size;
        for (uint32_t step = 0; step < own_steps; ++step) {
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

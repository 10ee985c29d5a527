// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// Writer (BRISC): sticks from L1 to DRAM or L1, as sticks or to tiles of 32 or 16 rows (face_rows.h). Before there is a
// result, its part in bringing gamma and beta (weights.h).
//
// CB contract:
//   pushes  cb_gamma, cb_beta  as the reader, where the writer reads them                                         -> compute
//   pops    cb_output          in pages of a tile's 1,024 elements: for each of this core's steps of a group of
//                              rows, a piece of each row, one behind the other                                    <- compute
//                              If cb_output lies over a shard, it has room for all, and nothing is popped.
//
// Where there is a residual, a group's s = x + residual comes in front of its results, unless that lies over a shard: in pages
// of a step of which it takes the first, whole pieces of the group's rows, row by row.
//
// A step's last tile may end in garbage, where its pieces are no whole tiles. So may the last page of gamma and beta: it
// reaches columns of the result that are never written.
//
//   pops    cb_own_statistics  where statistics are emitted, in place of results: for each group a page, whose first rows of
//                              Dest begin with a row's record                                                     <- compute
//
// Budget: transaction ids 1 to 4 of 15 (parts of gamma and beta); program semaphores 0 to 7 of 16
// (whether each part of gamma and of beta has arrived), 8 (the number 1, to be sent), and 9 to 15 (a core's part of s).
#include "face_rows.h"
#include "weights.h"

constexpr uint32_t cb_output = get_named_compile_time_arg_val("cb_output");
constexpr uint32_t output_piece = get_named_compile_time_arg_val("output_piece");  // bytes
constexpr uint32_t tile_size = get_named_compile_time_arg_val("tile_size");        // bytes
constexpr uint32_t group_rows = get_named_compile_time_arg_val("group_rows");
constexpr bool output_is_sharded = get_named_compile_time_arg_val("output_is_sharded");
constexpr uint32_t row_stride = get_named_compile_time_arg_val("row_stride");  // from a row of a group to the next
constexpr uint32_t piece_elements = get_named_compile_time_arg_val("piece_elements");
constexpr uint32_t output_tile_height = get_named_compile_time_arg_val("output_tile_height");  // 0: the output's rows are sticks
constexpr uint32_t element_size = output_piece / piece_elements;
// Of rows whose columns are on several chips: `output` has a record of each row's statistics, in pages of `page_rows`.
constexpr bool emits_statistics = get_named_compile_time_arg_val("emits_statistics");
constexpr uint32_t cb_own_statistics = get_named_compile_time_arg_val("cb_own_statistics");
constexpr uint32_t page_rows = get_named_compile_time_arg_val("page_rows");
constexpr uint32_t record_size = get_named_compile_time_arg_val("record_size"), dest_row_size = 64;  // bytes
constexpr uint32_t term_pieces = tile_size / output_piece;  // as in dest.h
constexpr uint32_t step_tiles = (group_rows * output_piece + tile_size - 1) / tile_size;

void kernel_main() {
    const uint32_t first_step = rows_are_cut ? RUNTIME_ARG(first_step) : 0;
    const uint32_t own_steps = RUNTIME_ARG(own_steps);
    constexpr auto output_args = TensorAccessorArgs<0>();
    constexpr auto stream_args = TensorAccessorArgs<output_args.next_compile_time_args_offset()>();

    if constexpr (has_gamma) {
        assert_cb(cb_gamma, RUNTIME_ARG(weight_pages), gamma_piece);
    }
    if constexpr (has_beta) {
        assert_cb(cb_beta, RUNTIME_ARG(weight_pages), beta_piece);
    }
    if constexpr (weights_are_sent) {
        const Sends sends{RUNTIME_ARG(sends)};
        if (sends.word != 0) {
            const uint32_t part_pages = RUNTIME_ARG(weight_part_pages);
            const Receivers receivers(ARG_POSITION(rectangles), sends.rectangles());
            const SentGamma gamma{own_steps, part_pages, sends.gamma_parts()};
            const SentBeta beta{own_steps, part_pages, sends.beta_parts()};
            for (uint32_t part = 0; part < max_parts; ++part) {
                gamma.send(receivers, part);
                beta.send(receivers, part);
            }
        }
    } else if constexpr (!reader_reads_weights) {
        read_weights<stream_args.next_compile_time_args_offset()>(
            first_step, own_steps, RUNTIME_ARG(own_columns), part_of(own_steps), all_parts, all_parts);
        push_weights(own_steps);
        noc_async_read_set_trid(0);
    }

    if constexpr (output_is_sharded) {
        return;
    }
    const uint32_t rows = RUNTIME_ARG(rows);
    const uint32_t first_row = RUNTIME_ARG(first_row);
    const uint32_t group_stride = RUNTIME_ARG(group_stride);  // rows from the first of a group to the first of the next
    const uint32_t output_stick = RUNTIME_ARG(output_stick);
    // Of this core's columns
    const uint32_t output_size =
        rows_are_cut ? RUNTIME_ARG(own_columns) * element_size : output_stick;
    const uint32_t stick_page = rows_are_pages ? output_stick : run_page_size;
    const auto output = TensorAccessor(
        output_args, RUNTIME_ARG(output_address),
        emits_statistics ? page_rows * record_size : output_tile_height != 0 ? output_tile_height * 2 * face_row * element_size : stick_page);

    // Sends this core's part of a row's s, which lies at its place in cb_stream, to the others that share the row.
    const auto send_stream = [&]() {
        const Receivers team(
            ARG_POSITION(rectangles) + 2 * Sends{RUNTIME_ARG(sends)}.rectangles(), RUNTIME_ARG(team_rectangles));
        const uint32_t at = get_write_ptr(cb_stream) + first_step * output_piece;
        const uint32_t id = stream_semaphores + RUNTIME_ARG(member);
        team.multicast(at, at, own_steps * output_piece, number(1), id, [] {});
        *semaphore(id) = 1;
    };
    // Writes s of `count` rows.
    const auto write_stream = [&](uint32_t row, uint32_t count) {
        const auto stream = TensorAccessor(stream_args, RUNTIME_ARG(stream_address), stick_page);
        uint32_t at = first_step * output_piece;  // of the row
        for (uint32_t pieces = count * own_steps; pieces > 0;) {
            cb_wait_front(cb_output, step_tiles);
            if (stream_is_sent && pieces <= term_pieces) {
                send_stream();
            }
            uint32_t address = get_read_ptr(cb_output);
            for (uint32_t i = 0; i < term_pieces && pieces > 0; ++i, --pieces) {
                const uint32_t left = output_stick - at, size = left < output_piece ? left : output_piece;
                uint32_t source = address;
                for_each_run(stream, row, at, size, [&](uint64_t target, uint32_t run_size) {
                    noc_async_write(source, target, run_size);
                    source += run_size;
                });
                address += output_piece;
                at += size;
                if (at == output_stick) {
                    at = 0;
                    row += row_stride;
                }
            }
            noc_async_writes_flushed();
            cb_pop_front(cb_output, step_tiles);
        }
    };
    uint32_t left_rows = rows;
    for (uint32_t first = first_row; left_rows > 0; first += group_stride) {
        const uint32_t count = left_rows < group_rows ? left_rows : group_rows;
        left_rows -= count;
        if constexpr (has_residual) {
            write_stream(first, count);
        }
        if constexpr (emits_statistics) {
            cb_wait_front(cb_own_statistics, 1);
            uint32_t address = get_read_ptr(cb_own_statistics);
            for (uint32_t row = first; row < first + count * row_stride; row += row_stride, address += dest_row_size) {
                noc_async_write(address, output.get_noc_addr(row / page_rows, row % page_rows * record_size), record_size);
            }
            noc_async_writes_flushed();
            cb_pop_front(cb_own_statistics, 1);
            continue;
        }
        const uint32_t tiles = (count * output_piece + tile_size - 1) / tile_size;
        ASSERT(get_local_cb_interface(cb_output).fifo_page_size == tile_size);
        ASSERT(get_local_cb_interface(cb_output).fifo_size % (tiles * tile_size) == 0);  // a step's tiles lie in a row
        uint64_t sticks[group_rows];
        if constexpr (rows_are_pages && output_tile_height == 0) {
            for (uint32_t row = 0; row < count; ++row) {
                sticks[row] = output.get_noc_addr(first + row * row_stride, first_step * output_piece);
            }
        }
        uint32_t at = first_step * output_piece;  // of a row, bytes
        uint32_t left = output_size;
        for (uint32_t step = 0; step < own_steps; ++step) {
            const uint32_t size = left < output_piece ? left : output_piece;
            left -= size;
            cb_wait_front(cb_output, tiles);
            uint32_t address = get_read_ptr(cb_output);
            for (uint32_t row = 0; row < count; ++row) {
                if constexpr (output_tile_height != 0) {
                    constexpr uint32_t tile_row = 2 * face_row * element_size;  // bytes, as all below
                    const Matrices matrices{RUNTIME_ARG(matrix_rows), output_tile_height};
                    const uint32_t across = (output_stick + tile_row - 1) / tile_row, of_row = first + row * row_stride;
                    const uint32_t page = matrices.tile_row(of_row) * across + at / tile_row;
                    const uint32_t offset = in_tile(matrices.row_in_tile(of_row)) * element_size;
                    for (uint32_t done = 0; done < size; done += tile_row) {
                        write_face_rows<element_size>(
                            address + done, face_row * element_size, output.get_noc_addr(page + done / tile_row, offset),
                            face * element_size, size - done < tile_row ? size - done : tile_row);
                    }
                } else if constexpr (rows_are_pages) {
                    noc_async_write(address, sticks[row], size);
                    sticks[row] += size;
                } else {
                    uint32_t source = address;
                    for_each_run(output, first + row * row_stride, at, size, [&](uint64_t target, uint32_t run_size) {
                        noc_async_write(source, target, run_size);
                        source += run_size;
                    });
                }
                address += output_piece;
            }
            at += size;
            noc_async_writes_flushed();
            cb_pop_front(cb_output, tiles);
        }
        ASSERT(left == 0);
    }
    noc_async_write_barrier();
}

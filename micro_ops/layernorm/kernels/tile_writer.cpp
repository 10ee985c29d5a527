// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// Writer (BRISC) of tiles: from cb_output to DRAM or L1, unless cb_output lies over a shard: where there is a residual, first
// a row's tiles of s = x + residual, then its results, as tiles or to sticks (face_rows.h). s always goes as tiles, unless
// cb_stream lies over its shard. Where cores share rows, it sends stripes or quads, too (gather.h), the sums of its stripes,
// and the statistics of its quads to all.
//
// CB contract, in pages of tile_compute.cpp:
//   pops    cb_output          unless it lies over a shard: then it has room for all                            <- compute
//   waits   cb_stream          for the first row of tiles, where there is a residual, and it sends stripes or quads
//   pops    cb_own_statistics  for each of this core's stripes a page of sums                                   <- compute
//   pops    cb_own_statistics  for each of this core's quads a page, of which this quad's part is sent          <- compute
//                              Where statistics are emitted, it is written, too: a record of each row, in place of results
//
// Budget: program semaphores 0 to 15 of 16, as the reader's, on other cores.
#include "face_rows.h"
#include "gather.h"

constexpr uint32_t cb_output = get_named_compile_time_arg_val("cb_output");
constexpr uint32_t cb_own_statistics = get_named_compile_time_arg_val("cb_own_statistics");
constexpr uint32_t cb_statistics = get_named_compile_time_arg_val("cb_statistics");
constexpr bool output_is_sharded = get_named_compile_time_arg_val("output_is_sharded");
constexpr bool stream_is_sharded = get_named_compile_time_arg_val("stream_is_sharded");
constexpr bool output_is_sticks = get_named_compile_time_arg_val("output_is_sticks");
// Of rows whose columns are on several chips: `output` has a record of each row's statistics, in pages of `page_rows`.
constexpr bool emits_statistics = get_named_compile_time_arg_val("emits_statistics");
constexpr uint32_t page_rows = get_named_compile_time_arg_val("page_rows");
constexpr uint32_t record_size = get_named_compile_time_arg_val("record_size");

constexpr uint32_t first_maker = get_named_compile_time_arg_val("first_maker"), first_rectangle = get_named_compile_time_arg_val("first_rectangle");  // among peers
constexpr bool subtract_mean = get_named_compile_time_arg_val("subtract_mean");

constexpr uint32_t quad_statistics_size = 4 * 16 * sizeof(float);  // a quad's rows of Dest
constexpr uint32_t own_statistics_size = 64 * 16 * sizeof(float);

// Sends the statistics of a quad in `row` to the other cores: this one has them in Dest. cb_own_statistics' page ends with
// rows of Dest that nobody needs: the number of rows is put there, to be sent behind them.
inline void send_statistics(const Receivers& receivers, uint32_t quad, uint32_t row) {
    const uint32_t page = get_read_ptr(cb_own_statistics), number = page + own_statistics_size - 16;
    const uint32_t at = quad * quad_statistics_size;
    *reinterpret_cast<volatile tt_l1_ptr uint32_t*>(number) = row + 1;
    *semaphore(statistics_semaphores + quad) = row + 1;
    if (receivers.count() != 0) {
        receivers.multicast(
            page + at, get_write_ptr(cb_statistics) + at, quad_statistics_size, number, statistics_semaphores + quad, [] {});
    }
}

// Writes the records of a quad in a row of tiles: the first of each row of Dest.
template <class Pages>
inline void write_records(const Pages& pages, const Matrices& matrices, uint32_t tile_row, uint32_t quad) {
    constexpr uint32_t quad_rows = 4, dest_row = 16 * sizeof(float);
    const uint32_t first = matrices.first_row(tile_row), end = first + matrices.row_count(tile_row);
    uint32_t from = get_read_ptr(cb_own_statistics) + quad * quad_statistics_size;
    for (uint32_t row = first + quad * quad_rows, i = 0; i < quad_rows && row < end; ++i, ++row, from += dest_row) {
        noc_async_write(from, pages.get_noc_addr(row / page_rows, row % page_rows * record_size), record_size);
    }
}

// Sends the sums of a stripe, 32 rows of Dest in cb_own_statistics' page, to the cores that make its quads' statistics,
// where they lie as dest.h says: a quad's of 2 x (LayerNorm), 4 rows, and those of x^2.
inline void send_sums(uint32_t stripe, uint32_t row_quads) {
    constexpr uint32_t dest_row = 16 * sizeof(float), quad_rows = 4 * dest_row, half_face = 8 * dest_row;
    const uint32_t first_quad = stripe / row_stripes * face_quads, column = stripe % row_stripes;
    const uint32_t count = row_quads - first_quad < face_quads ? row_quads - first_quad : face_quads;
    Peer makers[face_quads];
    for (uint32_t i = 0; i < count; ++i) {
        makers[i] = {get_arg_val<uint32_t>(ARG_POSITION(peers) + first_maker + first_quad + i)};
    }
    const uint32_t sums = get_write_ptr(cb_sums) + column / 2 * 2 * half_face + column % 2 * quad_rows;
    Writes writes(quad_rows);
    cb_wait_front(cb_own_statistics, 1);
    for (uint32_t i = 0; i < count; ++i) {
        const uint32_t from = get_read_ptr(cb_own_statistics) + i / 2 * 2 * half_face + i % 2 * quad_rows;
        const uint32_t to = sums + makers[i].pages_in_front() * own_statistics_size;
        writes.select(makers[i]);
        if constexpr (subtract_mean) {
            writes.write(from, to);
        }
        writes.write(from + half_face, to + half_face);
    }
    writes.flush();
    increment(sums_semaphore, makers, count);
    cb_pop_front(cb_own_statistics, 1);
}

void kernel_main() {
    const uint32_t tile_rows = RUNTIME_ARG(tile_rows);
    const uint32_t own_tiles = RUNTIME_ARG(own_tiles);
    const uint32_t first_tile = RUNTIME_ARG(first_tile);
    const uint32_t across = RUNTIME_ARG(tiles_across);
    const uint32_t quads = RUNTIME_ARG(quads);
    const uint32_t last_quads = RUNTIME_ARG(last_quads);
    constexpr auto output_args = TensorAccessorArgs<0>();
    constexpr auto stream_args = TensorAccessorArgs<output_args.next_compile_time_args_offset()>();
    constexpr uint32_t statistics_page_size = page_rows * record_size;
    const auto output = TensorAccessor(
        output_args, RUNTIME_ARG(output_address),
        emits_statistics ? statistics_page_size : output_is_sticks ? RUNTIME_ARG(output_page) : page_size);
    const auto stream = TensorAccessor(stream_args, RUNTIME_ARG(stream_address), page_size);

    const Sender sender{across, own_tiles, first_tile, ARG_POSITION(peers), RUNTIME_ARG(start)};
    const auto write_row = [&](const auto& tensor, uint32_t row) {
        const uint32_t tile_row = RUNTIME_ARG(first_tile_row) + row, offset = offset_of(tile_row);
        uint32_t page = first_page_of(tile_row, across) + first_tile;
        for (uint32_t tile = 0; tile < own_tiles; ++tile, ++page) {
            cb_wait_front(cb_output, 1);
            noc_async_write(get_read_ptr(cb_output), tensor.get_noc_addr(page, offset), tile_size);
            noc_async_writes_flushed();
            cb_pop_front(cb_output, 1);
        }
    };
    // The rows of a row of tiles, without its padding
    const auto write_sticks = [&](uint32_t row) {
        constexpr uint32_t tile_height = 4 * tile_quads, tile_row = 2 * face_row * input_size;  // bytes
        const Matrices matrices{RUNTIME_ARG(matrix_rows), tile_height};
        const uint32_t of_tiles = RUNTIME_ARG(first_tile_row) + row;
        const uint32_t first = matrices.first_row(of_tiles), count = matrices.row_count(of_tiles);
        uint64_t sticks[tile_height];
        for (uint32_t i = 0; i < count; ++i) {
            sticks[i] = output.get_noc_addr(first + i, first_tile * tile_row);
        }
        for (uint32_t tile = first_tile; tile < first_tile + own_tiles; ++tile) {
            const uint32_t size = tile + 1 == across ? RUNTIME_ARG(last_columns) * input_size : tile_row;
            cb_wait_front(cb_output, 1);
            const uint32_t address = get_read_ptr(cb_output);
            for (uint32_t i = 0; i < count; ++i) {
                write_face_rows<input_size>(
                    address + in_tile(i) * input_size, face * input_size, sticks[i], face_row * input_size, size);
                sticks[i] += tile_row;
            }
            noc_async_writes_flushed();
            cb_pop_front(cb_output, 1);
        }
    };
    constexpr bool writes_stream = has_residual && !stream_is_sharded;
    if constexpr (writes_stream) {
        write_row(stream, 0);
    }
    if constexpr (writer_sends) {
        sender.send(get_read_ptr(cb_source), tile_rows == 1 ? last_quads : quads, 1, 2, [](uint32_t count) {
            if constexpr (has_residual) {
                cb_wait_front(cb_stream, count);
            }
        });
    }
    const Receivers receivers(ARG_POSITION(peers) + first_rectangle, RUNTIME_ARG(rectangles));
    const uint32_t first_quad = RUNTIME_ARG(first_quad), makers = RUNTIME_ARG(makers);
    for (uint32_t row = 0; row < tile_rows; ++row) {
        if (writes_stream && row != 0) {
            write_row(stream, row);
        }
        const uint32_t row_quads = row + 1 == tile_rows ? last_quads : quads;
        if constexpr (rows_are_gathered) {
            if constexpr (rows_are_striped) {
                for (uint32_t stripe = RUNTIME_ARG(first_stripe); stripe < stripes_of(row_quads); stripe += RUNTIME_ARG(adders)) {
                    send_sums(stripe, row_quads);
                }
            }
            receivers.prepare_command_buffer();
        }
        if constexpr (rows_are_gathered || emits_statistics) {
            for (uint32_t quad = first_quad; quad < row_quads; quad += makers) {
                cb_wait_front(cb_own_statistics, 1);
                if constexpr (emits_statistics) {
                    const Matrices matrices{RUNTIME_ARG(matrix_rows), 4 * tile_quads};
                    write_records(output, matrices, RUNTIME_ARG(first_tile_row) + row, quad);
                }
                if constexpr (rows_are_gathered) {
                    if constexpr (emits_statistics) {
                        receivers.prepare_command_buffer();
                    }
                    send_statistics(receivers, quad, row);
                }
                noc_async_writes_flushed();
                cb_pop_front(cb_own_statistics, 1);
            }
        }
        if constexpr (emits_statistics) {
            continue;
        }
        if constexpr (output_is_sticks) {
            write_sticks(row);
        } else if constexpr (!output_is_sharded) {
            write_row(output, row);
        }
    }
    noc_async_write_barrier();
    noc_async_atomic_barrier();
}

// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// Reader (NCRISC) of tiles: from DRAM or L1 into cb_input, unless they are a shard, over which it lies; the residual
// likewise; gamma and beta; and where cores share rows, what others add up (gather.h).
//
// CB contract, in pages of tile_compute.cpp:
//   pushes  cb_input           for each row of tiles, this core's; a shard's all at once                        -> compute
//   pushes  cb_residual        as cb_input: where there is one, both in runs of a few tiles                       -> compute
//   reads   cb_stream          each row of tiles, where there is a residual, and rows are gathered                <- compute
//   pushes  cb_gamma, cb_beta  those of this core's columns, once                                               -> compute
//   pushes  cb_rows            for each row of tiles, this core's stripes, once all cores have sent theirs of
//                              them; without stripes, each of its quads                                                -> compute
//   pushes  cb_sums            for each row of tiles, those of this core's quads, once all stripes' are there   -> compute
//   pushes  cb_statistics      for each row of tiles a page, once all quads' statistics have arrived; or, if chips' are
//                              taken, each chip's of its rows, eight rows of Dest                             -> compute
//   uses    cb_chips           where the pages arrive that have those
//
// What pads a row's last tile is made zero before it is added up: in the copy that cb_input or cb_rows holds.
//
// Other cores write to cb_rows, cb_sums and cb_statistics only if this core is done with what they held: it sends a row's
// stripes or quads when it has popped the statistics of the row before, and without these there are none of the next row.
//
// Budget: transaction ids 1 to 3 of 15 (x and chips' statistics, gamma and beta, every other run of x and the residual); program
// semaphores 0 to 15 of 16 (0: how many have come of stripes, 1: of stripes' sums; or 0 to 7: of each of this core's
// quads; 8 to 15: of each quad, of how many rows its statistics have).
#include "face_rows.h"
#include "gather.h"

constexpr uint32_t cb_gamma = get_named_compile_time_arg_val("cb_gamma");
constexpr uint32_t cb_beta = get_named_compile_time_arg_val("cb_beta");
constexpr uint32_t cb_residual = get_named_compile_time_arg_val("cb_residual");
constexpr uint32_t cb_statistics = get_named_compile_time_arg_val("cb_statistics");
constexpr bool has_gamma = get_named_compile_time_arg_val("has_gamma");
constexpr bool has_beta = get_named_compile_time_arg_val("has_beta");
constexpr uint32_t gamma_size = get_named_compile_time_arg_val("gamma_size");  // of an element, bytes
constexpr uint32_t beta_size = get_named_compile_time_arg_val("beta_size");
// How gamma and beta lie: elements of a page, 0 for tiles; and pages in front of the first element.
constexpr uint32_t gamma_page = get_named_compile_time_arg_val("gamma_page");
constexpr uint32_t beta_page = get_named_compile_time_arg_val("beta_page");
constexpr uint32_t gamma_first_page = get_named_compile_time_arg_val("gamma_first_page");
constexpr uint32_t beta_first_page = get_named_compile_time_arg_val("beta_first_page");

constexpr uint32_t input_trid = 1, weight_trid = 2, other_run_trid = 3;
constexpr uint32_t run_tiles = get_named_compile_time_arg_val("run_tiles");  // of x and the residual that are read at once
constexpr uint32_t tile_columns = 32;

// Of rows whose columns are on several chips: their statistics (reader.cpp), of which a row of tiles has one page of each
// chip, or two.
constexpr bool takes_statistics = get_named_compile_time_arg_val("takes_statistics");
constexpr uint32_t cb_chips = get_named_compile_time_arg_val("cb_chips");
constexpr uint32_t chips = get_named_compile_time_arg_val("chips");
constexpr uint32_t page_rows = get_named_compile_time_arg_val("page_rows");
constexpr uint32_t record_size = get_named_compile_time_arg_val("record_size"), statistics_page_size = page_rows * record_size;

// Reads a weight's columns from `column` on. Of tiles, the first row of each face, in 64 bytes, as DRAM's alignment wants:
// bfloat16 has another row behind it.
template <uint32_t size, uint32_t page_elements, uint32_t first_page, class Pages>
__attribute__((always_inline)) inline void read_weight(
    const Pages& pages, uint32_t l1, uint32_t column, uint32_t columns) {
    if constexpr (page_elements == 0) {
        constexpr uint32_t row = 64, face = 256 * size;
        for (uint32_t done = 0; done < columns; done += tile_columns) {
            const uint64_t tile = pages.get_noc_addr((column + done) / tile_columns);
            noc_async_read(tile, l1, row);
            noc_async_read(tile + face, l1 + row, row);
            l1 += 2 * row;
        }
    } else {
        uint32_t page = first_page + column / page_elements, at = column % page_elements;
        for (uint32_t left = columns; left > 0;) {
            const uint32_t in_page = page_elements - at, count = left < in_page ? left : in_page;
            noc_async_read(pages.get_noc_addr(page, at * size), l1, count * size);
            l1 += count * size;
            left -= count;
            ++page;
            at = 0;
        }
    }
}

// Zeros in the columns from `column` on of `rows` rows of 16 elements.
inline void zero_columns(uint32_t address, uint32_t rows, uint32_t column) {
    using Element = std::conditional_t<input_size == 4, uint32_t, uint16_t>;
    volatile tt_l1_ptr Element* row = reinterpret_cast<volatile tt_l1_ptr Element*>(address);
    for (; rows > 0; --rows, row += 16) {
        for (uint32_t at = column; at < 16; ++at) {
            row[at] = 0;
        }
    }
}

// Makes the columns of a tile from `columns` on zero, of pairs of runs of `rows` rows, one of each of its halves.
inline void zero_padding(uint32_t address, uint32_t pairs, uint32_t rows, uint32_t columns) {
    const uint32_t run = rows * 16 * input_size;
    for (; pairs > 0; --pairs, address += 2 * run) {
        zero_columns(address, rows, columns);
        zero_columns(address + run, rows, columns < 16 ? 0 : columns - 16);
    }
}

// Pages that have been pushed to a CB, modulo 2^16.
inline uint16_t received(uint32_t cb) { return reg_read(reinterpret_cast<uint32_t>(get_cb_tiles_received_ptr(cb))); }

void kernel_main() {
    uint16_t received_before = has_residual ? received(cb_stream) : 0;
    const uint32_t tile_rows = RUNTIME_ARG(tile_rows);
    const uint32_t own_tiles = RUNTIME_ARG(own_tiles);
    const uint32_t first_tile = RUNTIME_ARG(first_tile);
    const uint32_t across = RUNTIME_ARG(tiles_across);
    const uint32_t quads = RUNTIME_ARG(quads);
    const uint32_t last_quads = RUNTIME_ARG(last_quads);
    const uint32_t last_columns = RUNTIME_ARG(last_columns);  // of a row's last tile
    const uint32_t own_columns = RUNTIME_ARG(own_columns);
    const uint32_t row_pages = RUNTIME_ARG(row_pages);  // from a row of tiles to the next in cb_source
    constexpr auto input_args = TensorAccessorArgs<0>();
    constexpr auto gamma_args = TensorAccessorArgs<input_args.next_compile_time_args_offset()>();
    constexpr auto beta_args = TensorAccessorArgs<gamma_args.next_compile_time_args_offset()>();
    constexpr auto residual_args = TensorAccessorArgs<beta_args.next_compile_time_args_offset()>();
    const auto input = TensorAccessor(input_args, RUNTIME_ARG(input_address), page_size);
    const bool has_last_tile = !takes_statistics && last_columns != tile_columns && first_tile + own_tiles == across;

    constexpr auto statistics_args = TensorAccessorArgs<residual_args.next_compile_time_args_offset()>();
    const Matrices matrices{takes_statistics ? RUNTIME_ARG(matrix_rows) : 1, 4 * tile_quads};
    const auto read_statistics = [&](uint32_t row) __attribute__((always_inline)) {
        const auto pages = TensorAccessor(statistics_args, RUNTIME_ARG(statistics_address), statistics_page_size);
        const uint32_t of_tiles = RUNTIME_ARG(first_tile_row) + row, first = matrices.first_row(of_tiles);
        const uint32_t end = first + matrices.row_count(of_tiles);
        uint32_t l1 = get_write_ptr(cb_chips);
        noc_async_read_set_trid(input_trid);
        for (uint32_t chip = 0; chip < chips; ++chip, l1 += 2 * statistics_page_size) {
            const uint32_t page = chip * RUNTIME_ARG(chip_pages) + first / page_rows;
            noc_async_read(pages.get_noc_addr(page), l1, statistics_page_size);
            if (first / page_rows != (end - 1) / page_rows) {
                noc_async_read(pages.get_noc_addr(page + 1), l1 + statistics_page_size, statistics_page_size);
            }
        }
    };
    // Puts each chip's records of a row of tiles one behind another, once they are there: the NoC may copy 16 bytes to
    // wherever they belong in L1, not from DRAM.
    const auto push_statistics = [&](uint32_t row) __attribute__((always_inline)) {
        const uint32_t of_tiles = RUNTIME_ARG(first_tile_row) + row, first = matrices.first_row(of_tiles);
        const uint32_t size = matrices.row_count(of_tiles) * record_size;
        cb_reserve_back(cb_statistics, 1);
        uint64_t from = get_noc_addr(get_write_ptr(cb_chips) + first % page_rows * record_size);
        uint32_t to = get_write_ptr(cb_statistics);
        for (uint32_t chip = 0; chip < chips; ++chip, from += 2 * statistics_page_size, to += statistics_page_size) {
            noc_async_read(from, to, size);
        }
        noc_async_read_barrier_with_trid(input_trid);
        cb_push_back(cb_statistics, 1);
    };
    const auto read_row = [&](uint32_t row) __attribute__((always_inline)) {
        const uint32_t tile_row = RUNTIME_ARG(first_tile_row) + row, offset = offset_of(tile_row);
        uint32_t page = first_page_of(tile_row, across) + first_tile, l1 = get_write_ptr(cb_input);
        noc_async_read_set_trid(input_trid);
        for (uint32_t tile = 0; tile < own_tiles; ++tile, ++page, l1 += tile_size) {
            noc_async_read(input.get_noc_addr(page, offset), l1, tile_size);
        }
    };
    // Reads a row's tiles of x and of the residual, run by run: one run is on its way while the one before is awaited. Whole
    // runs are pushed, so that none ever goes round the end of the CBs.
    const uint32_t x_ring = get_write_ptr(cb_input), residual_ring = get_write_ptr(cb_residual);
    uint32_t slot = 0;  // bytes from there to the next run
    const auto read_terms = [&](uint32_t row) __attribute__((always_inline)) {
        const auto residual = TensorAccessor(residual_args, RUNTIME_ARG(residual_address), page_size);
        const uint32_t last_slot = (RUNTIME_ARG(ring_terms) - run_tiles) * tile_size;
        const uint32_t tile_row = RUNTIME_ARG(first_tile_row) + row, offset = offset_of(tile_row);
        uint32_t page = first_page_of(tile_row, across) + first_tile, left = own_tiles, awaited = 0;
        uint32_t trid = input_trid, last = 0;
        do {
            const uint32_t count = left < run_tiles ? left : run_tiles;
            if (count != 0) {
                cb_reserve_back(cb_input, awaited == 0 ? run_tiles : 2 * run_tiles);
                cb_reserve_back(cb_residual, awaited == 0 ? run_tiles : 2 * run_tiles);
                noc_async_read_set_trid(trid);
                for (uint32_t at = slot; at != slot + count * tile_size; at += tile_size, ++page) {
                    noc_async_read(input.get_noc_addr(page, offset), x_ring + at, tile_size);
                    noc_async_read(residual.get_noc_addr(page, offset), residual_ring + at, tile_size);
                }
            }
            trid ^= input_trid ^ other_run_trid;
            if (awaited != 0) {
                noc_async_read_barrier_with_trid(trid);
                if (count == 0 && has_last_tile && !rows_are_gathered) {
                    zero_padding(x_ring + last, tile_quads / face_quads, 16, last_columns);
                    zero_padding(residual_ring + last, tile_quads / face_quads, 16, last_columns);
                }
                cb_push_back(cb_input, run_tiles);
                cb_push_back(cb_residual, run_tiles);
            }
            if (count != 0) {
                last = slot + (count - 1) * tile_size;
                slot = slot == last_slot ? 0 : slot + run_tiles * tile_size;
            }
            awaited = count;
            left -= count;
        } while (awaited != 0);
    };
    if constexpr (takes_statistics) {
        read_statistics(0);
    }
    if constexpr (input_is_sharded) {
        cb_push_back(cb_input, tile_rows * row_pages);
        if constexpr (has_residual) {
            cb_push_back(cb_residual, tile_rows * row_pages);
        }
    } else if constexpr (!has_residual) {
        cb_reserve_back(cb_input, row_pages);
        read_row(0);
    }
    const auto issue_weights = [&]() __attribute__((always_inline)) {
        if constexpr (has_gamma || has_beta) {
            noc_async_read_set_trid(weight_trid);
            if constexpr (has_gamma) {
                const auto pages = TensorAccessor(gamma_args, RUNTIME_ARG(gamma_address), RUNTIME_ARG(gamma_page_size));
                read_weight<gamma_size, gamma_page, gamma_first_page>(
                    pages, get_write_ptr(cb_gamma), first_tile * tile_columns, own_columns);
            }
            if constexpr (has_beta) {
                const auto pages = TensorAccessor(beta_args, RUNTIME_ARG(beta_address), RUNTIME_ARG(beta_page_size));
                read_weight<beta_size, beta_page, beta_first_page>(
                    pages, get_write_ptr(cb_beta), first_tile * tile_columns, own_columns);
            }
        }
    };
    const auto push_weights = [&]() __attribute__((always_inline)) {
        if constexpr (has_gamma || has_beta) {
            noc_async_read_barrier_with_trid(weight_trid);
        }
        if constexpr (has_gamma) {
            cb_push_back(cb_gamma, own_tiles);
        }
        if constexpr (has_beta) {
            cb_push_back(cb_beta, own_tiles);
        }
    };

    // Where quads are sent at once, others wait for them; for gamma and beta, nobody does yet.
    constexpr bool sends_first = rows_are_gathered && input_is_sharded;
    if constexpr (!sends_first) {
        issue_weights();
    }
    const Sender sender{across, own_tiles, first_tile, ARG_POSITION(peers), RUNTIME_ARG(start)};
    const uint32_t adders = RUNTIME_ARG(adders), makers = RUNTIME_ARG(makers);
    const uint32_t members = RUNTIME_ARG(members);
    const uint32_t ring = get_read_ptr(cb_source), ring_end = ring + RUNTIME_ARG(ring_tiles) * tile_size;
    uint32_t tiles = ring;  // of the row
    uint32_t stripes_to_come = 0, sums_to_come = 0;  // to this core, of the rows up to this one

    // This core's stripes of a row, once all cores have sent theirs of them.
    const auto push_stripes = [&](uint32_t row_quads) __attribute__((always_inline)) {
        const uint32_t first_stripe = RUNTIME_ARG(first_stripe), stripes = stripes_of(row_quads);
        if (first_stripe >= stripes) {
            return;
        }
        for (uint32_t stripe = first_stripe; stripe < stripes; stripe += adders) {
            stripes_to_come += members;
        }
        noc_semaphore_wait_min(semaphore(rows_semaphores), stripes_to_come);
        if (last_columns != tile_columns) {
            uint32_t rows = get_write_ptr(cb_rows);
            for (uint32_t stripe = first_stripe; stripe < stripes; stripe += adders) {
                for (uint32_t column = 2 * across - 2, left = last_columns; column < 2 * across; ++column) {
                    if (column % row_stripes == stripe % row_stripes) {
                        zero_columns(rows + column / row_stripes * face_size, 16, left);
                    }
                    left = left < 16 ? 0 : left - 16;
                }
                rows += sender.pages() * chunk_size;
            }
        }
        cb_push_back(cb_rows, RUNTIME_ARG(rows_pages));
    };
    // The sums of this core's quads of a row, once the adders of their stripes have sent them.
    const auto push_sums = [&](uint32_t row_quads) __attribute__((always_inline)) {
        const uint32_t first_quad = RUNTIME_ARG(first_quad);
        if (first_quad >= row_quads) {
            return;
        }
        for (uint32_t quad = first_quad; quad < row_quads; quad += makers) {
            sums_to_come += row_stripes;
        }
        noc_semaphore_wait_min(semaphore(sums_semaphore), sums_to_come);
        cb_push_back(cb_sums, RUNTIME_ARG(sums_pages));
    };
    // Without stripes: this core's quads of a row, each once all cores have sent theirs of it.
    const auto push_quads = [&](uint32_t row, uint32_t row_quads) __attribute__((always_inline)) {
        const uint32_t pages = sender.pages(), end = get_write_ptr(cb_rows) + RUNTIME_ARG(rows_pages) * chunk_size;
        uint32_t rows = get_write_ptr(cb_rows), turn = 0;
        for (uint32_t quad = RUNTIME_ARG(first_quad); quad < row_quads; quad += makers, ++turn) {
            noc_semaphore_wait_min(semaphore(rows_semaphores + turn), members * (row + 1));
            if (last_columns != tile_columns) {
                zero_padding(rows + (across - 1) * 2 * quarter_face_size, 1, 4, last_columns);
            }
            cb_push_back(cb_rows, pages);
            rows += pages * chunk_size;
        }
        if (turn != 0) {
            cb_push_back(cb_rows, (end - rows) / chunk_size);
        }
    };
    for (uint32_t row = 0; row < tile_rows; ++row) {
        const uint32_t row_quads = row + 1 == tile_rows ? last_quads : quads;
        if (takes_statistics && row != 0) {
            read_statistics(row);
        }
        if constexpr (has_residual && !input_is_sharded) {
            read_terms(row);
        } else if constexpr (!input_is_sharded) {
            if (row != 0) {
                cb_reserve_back(cb_input, row_pages);
                read_row(row);
            }
            noc_async_read_barrier_with_trid(input_trid);
            if (has_last_tile && !rows_are_gathered) {
                zero_padding(tiles + (own_tiles - 1) * tile_size, tile_quads / face_quads, 16, last_columns);
            }
            cb_push_back(cb_input, row_pages);
        } else if constexpr (takes_statistics) {
            noc_async_read_barrier_with_trid(input_trid);
        }
        if constexpr (takes_statistics) {
            noc_async_read_set_trid(input_trid);
            push_statistics(row);
        }
        if constexpr (rows_are_gathered) {
            if (row != 0) {
                cb_reserve_back(cb_statistics, 1);
            }
            // Compute pops the pages of cb_stream, so those of this row are told from earlier ones by how many came.
            sender.send(tiles, row_quads, 0, writer_sends && row == 0 ? 2 : 1, [=](uint32_t count) __attribute__((always_inline)) {
                while (has_residual && static_cast<uint16_t>(received(cb_stream) - received_before) < count) {
                }
            });
            received_before += row_pages;
        }
        if constexpr (sends_first) {
            if (row == 0) {
                issue_weights();
            }
        }
        if constexpr (rows_are_striped) {
            push_stripes(row_quads);
        } else if constexpr (rows_are_gathered) {
            push_quads(row, row_quads);
        }
        if (row == 0) {
            push_weights();
        }
        if constexpr (rows_are_striped) {
            push_sums(row_quads);
        }
        if constexpr (rows_are_gathered) {
            for (uint32_t quad = 0; quad < row_quads; ++quad) {
                noc_semaphore_wait_min(semaphore(statistics_semaphores + quad), row + 1);
            }
            cb_push_back(cb_statistics, 1);
        }
        tiles += row_pages * tile_size;
        tiles = tiles == ring_end ? ring : tiles;
    }
    noc_async_read_set_trid(0);
    noc_async_write_barrier();
    noc_async_atomic_barrier();
}

// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// What reader and writer of tiles share: a quad's blocks on their way to the core that adds it up. dest.h says what a quad and
// a block are.
//
// Each core of those that share a row of tiles writes its blocks of a quad into cb_rows of the core that adds the quad up,
// where they lie side by side as in the row, and then increments a semaphore there; a write and an atomic from one core
// to another keep their order, since they go by one NoC and one virtual channel, once the writes have left.
#pragma once

#include <cstdint>

#include "agreement.h"
#include "receivers.h"

constexpr uint32_t cb_input = get_named_compile_time_arg_val("cb_input");
constexpr uint32_t cb_rows = get_named_compile_time_arg_val("cb_rows");
constexpr bool rows_are_gathered = get_named_compile_time_arg_val("rows_are_gathered");
constexpr bool input_is_sharded = get_named_compile_time_arg_val("input_is_sharded");
constexpr uint32_t input_size = get_named_compile_time_arg_val("input_size");  // of an element, bytes
constexpr uint32_t row_pages = get_named_compile_time_arg_val("row_pages");  // from a row of tiles to the next in cb_input
constexpr uint32_t tile_quads = get_named_compile_time_arg_val("tile_quads");
constexpr uint32_t rows_semaphores = get_named_compile_time_arg_val("rows_semaphores");
constexpr uint32_t statistics_semaphores = get_named_compile_time_arg_val("statistics_semaphores");

constexpr uint32_t face_quads = 4, chunk_tiles = 4;
constexpr uint32_t block_size = 64 * input_size, face_size = face_quads * block_size;  // bytes
constexpr uint32_t tile_size = tile_quads / 2 * face_size;
constexpr uint32_t chunk_size = chunk_tiles * 2 * block_size;

// The two processors of a core that has its tiles from the start send every other quad.
constexpr bool writer_sends_quads = rows_are_gathered && input_is_sharded;

struct Quads {
    uint32_t across, own, first_tile;  // tiles of a row, this core's of it, and the first of those
    uint32_t adders;                   // cores that add quads up: quad q is that of core q % adders
    uint32_t coordinates;              // the runtime argument that has theirs, of the first one

    uint32_t chunks() const { return (across + chunk_tiles - 1) / chunk_tiles; }

    // Sends the quads first, first + step, ... of `count`, of the tiles that begin at `tiles`.
    void send(uint32_t tiles, uint32_t first, uint32_t step, uint32_t count) const {
        const uint32_t rows = get_write_ptr(cb_rows);
        for (uint32_t quad = first; quad < count; quad += step) {
            const uint32_t place = quad % adders, turn = quad / adders;
            const uint32_t core = get_arg_val<uint32_t>(coordinates + place);
            const uint32_t x = core & 0xff, y = core >> 8;
            uint32_t from = tiles + quad / face_quads * 2 * face_size + quad % face_quads * block_size;
            uint32_t to = rows + turn * chunks() * chunk_size + first_tile * 2 * block_size;
            noc_async_write_one_packet_set_state(get_noc_addr(x, y, to), block_size);
            for (uint32_t tile = 0; tile < own; ++tile) {
                noc_async_write_one_packet_with_state(from, to);
                noc_async_write_one_packet_with_state(from + face_size, to + block_size);
                from += tile_size;
                to += 2 * block_size;
            }
            noc_async_writes_flushed();
            noc_semaphore_inc(get_noc_addr(x, y, get_semaphore(rows_semaphores + turn)), 1);
        }
    }
};

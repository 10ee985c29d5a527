// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// What reader and writer of tiles share: a quad's quarter faces on their way to the core that adds it up. dest.h says what a
// quad and a quarter face are.
//
// Each core of those that share a row of tiles writes its quarter faces of a quad into cb_rows of the core that adds it up,
// where they lie side by side as in the row, and then increments a semaphore there; a write and an atomic from one core
// to another keep their order, since they go by one NoC and one virtual channel, once the writes have left.
#pragma once

#include <cstdint>

#include "agreement.h"
#include "receivers.h"

constexpr uint32_t cb_input = get_named_compile_time_arg_val("cb_input");
constexpr uint32_t cb_stream = get_named_compile_time_arg_val("cb_stream");
constexpr uint32_t cb_rows = get_named_compile_time_arg_val("cb_rows");
constexpr bool rows_are_gathered = get_named_compile_time_arg_val("rows_are_gathered");
constexpr bool input_is_sharded = get_named_compile_time_arg_val("input_is_sharded");
constexpr bool has_residual = get_named_compile_time_arg_val("has_residual");
constexpr uint32_t cb_source = has_residual ? cb_stream : cb_input;  // what is added up and normalized
constexpr uint32_t input_size = get_named_compile_time_arg_val("input_size");  // of an element, bytes
constexpr uint32_t tile_quads = get_named_compile_time_arg_val("tile_quads");
constexpr uint32_t rows_semaphores = get_named_compile_time_arg_val("rows_semaphores");
constexpr uint32_t statistics_semaphores = get_named_compile_time_arg_val("statistics_semaphores");

constexpr uint32_t face_quads = 4, chunk_tiles = 4;
constexpr uint32_t quarter_face_size = 64 * input_size, face_size = face_quads * quarter_face_size;  // bytes
constexpr uint32_t tile_size = tile_quads / 2 * face_size;
constexpr uint32_t chunk_size = chunk_tiles * 2 * quarter_face_size;

// The two processors of a core that has its tiles from the start send every other quad.
constexpr bool writer_sends_quads = rows_are_gathered && input_is_sharded;

struct Quads {
    uint32_t across, own, first_tile;  // tiles of a row, this core's of it, and the first of those
    uint32_t adders;                   // cores that add quads up: quad q is that of core q % adders
    uint32_t coordinates;              // the runtime argument that has theirs, of the first one
    uint32_t start;                    // the quad that this core sends first

    uint32_t chunks() const { return (across + chunk_tiles - 1) / chunk_tiles; }

    // Sends of `count` quads the (start + first)th, the (start + first + step)th, ..., the last one followed by the first, of
    // the tiles that begin at `tiles`. Each core starts with another quad: else all would send to one core at a time.
    __attribute__((noinline)) void send(uint32_t tiles, uint32_t first, uint32_t step, uint32_t count) const {
        prepare();
        for (uint32_t i = first; i < count; i += step) {
            const Quad quad = find(tiles, i, count);
            wait_for_registers();
            set_register(NOC_RET_ADDR_COORDINATE, coordinate_register(quad.semaphore));
            uint32_t from = quad.from, to = quad.to;
            for (uint32_t tile = 0; tile < own; ++tile) {
                send_quarter_faces(from, to);
                from += tile_size;
                to += 2 * quarter_face_size;
            }
            count_writes(2 * own);
            noc_async_writes_flushed();
            noc_semaphore_inc(quad.semaphore, 1);
        }
    }

    // The same of tiles that are still being made: all quads of one, then of the next. `wait(n)` returns when n are there.
    template <class Wait>
    __attribute__((always_inline)) void send_as_made(
        uint32_t tiles, uint32_t first, uint32_t step, uint32_t count, Wait wait) const {
        Quad quads[tile_quads];
        uint32_t mine = 0;
        for (uint32_t i = first; i < count; i += step) {
            quads[mine++] = find(tiles, i, count);
        }
        prepare();
        for (uint32_t tile = 0; tile < own; ++tile) {
            wait(tile + 1);
            for (uint32_t i = 0; i < mine; ++i) {
                wait_for_registers();
                set_register(NOC_RET_ADDR_COORDINATE, coordinate_register(quads[i].semaphore));
                send_quarter_faces(quads[i].from + tile * tile_size, quads[i].to + tile * 2 * quarter_face_size);
            }
        }
        count_writes(2 * own * mine);
        noc_async_writes_flushed();
        for (uint32_t i = 0; i < mine; ++i) {
            noc_semaphore_inc(quads[i].semaphore, 1);
        }
    }

private:
    struct Quad {
        uint64_t semaphore;  // of the core that adds it up
        uint32_t from, to;   // its quarter faces in this core's first tile, and in cb_rows there
    };

    // The (start + i)th of `count` quads of the tiles that begin at `tiles`.
    __attribute__((always_inline)) Quad find(uint32_t tiles, uint32_t i, uint32_t count) const {
        uint32_t quad = start + i;
        while (quad >= count) {
            quad -= count;
        }
        uint32_t place = quad, turn = 0;
        for (; place >= adders; place -= adders) {
            ++turn;
        }
        const uint32_t core = get_arg_val<uint32_t>(coordinates + place);
        return {get_noc_addr(core & 0xff, core >> 8, get_semaphore(rows_semaphores + turn)),
                tiles + quad / face_quads * 2 * face_size + quad % face_quads * quarter_face_size,
                get_write_ptr(cb_rows) + first_tile * 2 * quarter_face_size + turn * chunks() * chunk_size};
    }

    __attribute__((always_inline)) static void prepare() {
        wait_for_registers();
        noc_write_init_state<write_cmd_buf, CQ_NOC_mkp>(noc_index, NOC_UNICAST_WRITE_VC);
        set_register(NOC_AT_LEN_BE, quarter_face_size);
    }

    // A quad's two in a tile.
    __attribute__((always_inline)) static void send_quarter_faces(uint32_t from, uint32_t to) {
        wait_for_registers();
        set_register(NOC_TARG_ADDR_LO, from);
        set_register(NOC_RET_ADDR_LO, to);
        set_register(NOC_CMD_CTRL, NOC_CTRL_SEND_REQ);
        wait_for_registers();
        set_register(NOC_TARG_ADDR_LO, from + face_size);
        set_register(NOC_RET_ADDR_LO, to + quarter_face_size);
        set_register(NOC_CMD_CTRL, NOC_CTRL_SEND_REQ);
    }

    // That `count` writes have been issued, for the calls that wait for them.
    __attribute__((always_inline)) static void count_writes(uint32_t count) {
        noc_nonposted_writes_num_issued[noc_index] += count;
        noc_nonposted_writes_acked[noc_index] += count;
    }
};

// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// What reader and writer of tiles share: rows on their way to the cores that add them up. dest.h says what a quad, a
// quarter face and a stripe are.
//
// Each core of those that share a row of tiles writes what it has of a stripe (float32: of a quad) into cb_rows of the core
// that adds it up, where it lies side by side as in the row, and then increments a semaphore there; a write and an atomic
// from one core to another keep their order, since they go by one NoC and one virtual channel, once the writes have left.
#pragma once

#include <cstdint>

#include "agreement.h"
#include "receivers.h"

constexpr uint32_t cb_input = get_named_compile_time_arg_val("cb_input");
constexpr uint32_t cb_stream = get_named_compile_time_arg_val("cb_stream");
constexpr uint32_t cb_rows = get_named_compile_time_arg_val("cb_rows");
constexpr uint32_t cb_sums = get_named_compile_time_arg_val("cb_sums");
constexpr bool rows_are_gathered = get_named_compile_time_arg_val("rows_are_gathered");
constexpr bool input_is_sharded = get_named_compile_time_arg_val("input_is_sharded");
constexpr bool has_residual = get_named_compile_time_arg_val("has_residual");
constexpr uint32_t cb_source = has_residual ? cb_stream : cb_input;  // what is added up and normalized
constexpr uint32_t input_size = get_named_compile_time_arg_val("input_size");  // of an element, bytes
constexpr bool rows_are_striped = rows_are_gathered && input_size == 2;
constexpr uint32_t tile_quads = get_named_compile_time_arg_val("tile_quads");
// Of how many quarter faces and faces, or of each quad, have come; of sums; of each quad, of how many rows its statistics have
constexpr uint32_t rows_semaphores = get_named_compile_time_arg_val("rows_semaphores");
constexpr uint32_t sums_semaphore = get_named_compile_time_arg_val("sums_semaphore");
constexpr uint32_t statistics_semaphores = get_named_compile_time_arg_val("statistics_semaphores");

constexpr uint32_t face_quads = 4, chunk_tiles = 4, row_stripes = 8;
constexpr uint32_t quarter_face_size = 64 * input_size, face_size = face_quads * quarter_face_size;  // bytes
constexpr uint32_t tile_size = tile_quads / 2 * face_size;
constexpr uint32_t chunk_size = chunk_tiles * 2 * quarter_face_size;  // a page of cb_rows: of a stripe, two faces

// The two processors of a core that has its tiles from the start send every other stripe or quad.
constexpr bool writer_sends = rows_are_gathered && input_is_sharded;

// Stripes of a row of tiles with so many quads: those of its upper faces, then of its lower ones.
inline uint32_t stripes_of(uint32_t quads) { return quads > face_quads ? 2 * row_stripes : row_stripes; }

// Where this core's tiles are, and what it sends of them to whom.
struct Sender {
    uint32_t across, own, first_tile;  // tiles of a row, this core's of it, and the first of those
    uint32_t adders;                   // cores that add up: stripe or quad i is that of core i % adders
    uint32_t coordinates;              // the runtime argument that has theirs, of the first one
    uint32_t start;                    // the stripe or quad that this core sends first: else all would send to one at a time

    // Pages of cb_rows that a stripe or a quad takes.
    uint32_t pages() const { return (across + chunk_tiles - 1) / chunk_tiles; }

    // Sends of a row of `quads` quads, of the tiles that begin at `tiles`, the (start + first)th stripe, the (start + first +
    // step)th, ..., the last one followed by the first; float32: the quads. `wait(n)` returns when n of this core's tiles
    // are there.
    template <class Wait>
    __attribute__((always_inline)) void send(
        uint32_t tiles, uint32_t quads, uint32_t first, uint32_t step, Wait wait) const {
        if constexpr (!rows_are_striped) {
            wait(own);
            send_quads(tiles, quads, first, step);
        } else if constexpr (has_residual) {
            send_stripes_as_made(tiles, quads, first, step, wait);
        } else {
            send_stripes(tiles, quads, first, step);
        }
    }

private:
    struct Place {
        uint64_t semaphore;  // of the core that adds up stripe or quad i
        uint32_t rows;       // where that lies in cb_rows there
    };

    __attribute__((always_inline)) Place place_of(uint32_t i) const {
        uint32_t adder = i, turn = 0;
        for (; adder >= adders; adder -= adders) {
            ++turn;
        }
        const uint32_t core = get_arg_val<uint32_t>(coordinates + adder);
        const uint32_t id = rows_semaphores + (rows_are_striped ? 0 : turn);
        return {get_noc_addr(core & 0xff, core >> 8, get_semaphore(id)), get_write_ptr(cb_rows) + turn * pages() * chunk_size};
    }

    // Makes ready for writes of `size` bytes.
    __attribute__((always_inline)) static void prepare(uint32_t size) {
        wait_for_registers();
        noc_write_init_state<write_cmd_buf, CQ_NOC_mkp>(noc_index, NOC_UNICAST_WRITE_VC);
        set_register(NOC_AT_LEN_BE, size);
    }

    __attribute__((always_inline)) static void select_core(const Place& place) {
        wait_for_registers();
        set_register(NOC_RET_ADDR_COORDINATE, coordinate_register(place.semaphore));
    }

    __attribute__((always_inline)) static void write(uint32_t from, uint32_t to) {
        wait_for_registers();
        set_register(NOC_TARG_ADDR_LO, from);
        set_register(NOC_RET_ADDR_LO, to);
        set_register(NOC_CMD_CTRL, NOC_CTRL_SEND_REQ);
    }

    // That `count` writes have been issued, for the calls that wait for them; and waits until they have left.
    __attribute__((always_inline)) static void flush(uint32_t count) {
        noc_nonposted_writes_num_issued[noc_index] += count;
        noc_nonposted_writes_acked[noc_index] += count;
        noc_async_writes_flushed();
    }

    // Bytes of a face in the `half` of a row of tiles, without quads of padding.
    __attribute__((always_inline)) static uint32_t face_bytes(uint32_t quads, uint32_t half) {
        const uint32_t left = quads - half * face_quads;
        return (left < face_quads ? left : face_quads) * quarter_face_size;
    }

    __attribute__((noinline)) void send_stripes(uint32_t tiles, uint32_t quads, uint32_t first, uint32_t step) const {
        const uint32_t count = stripes_of(quads);
        uint32_t writes = 0;
        prepare(face_bytes(quads, 0));
        for (uint32_t i = first; i < count; i += step) {
            const uint32_t stripe = (start + i) & (count - 1), half = stripe / row_stripes;
            const Place place = place_of(stripe);
            select_core(place);
            set_register(NOC_AT_LEN_BE, face_bytes(quads, half));
            // Of this core's 2 * own columns of faces, those in the stripe
            uint32_t column = (stripe - 2 * first_tile) % row_stripes;
            uint32_t from = tiles + column / 2 * tile_size + (half * 2 + column % 2) * face_size;
            uint32_t to = place.rows + (2 * first_tile + column) / row_stripes * face_size;
            for (; column < 2 * own; column += row_stripes) {
                write(from, to);
                from += row_stripes / 2 * tile_size;
                to += face_size;
                ++writes;
            }
        }
        flush(writes);
        for (uint32_t i = first; i < count; i += step) {
            noc_semaphore_inc(place_of((start + i) & (count - 1)).semaphore, 1);
        }
    }

    // The same of tiles that are still being made: all faces of one, then of the next.
    template <class Wait>
    __attribute__((always_inline)) void send_stripes_as_made(
        uint32_t tiles, uint32_t quads, uint32_t first, uint32_t step, Wait wait) const {
        const uint32_t count = stripes_of(quads);
        Place places[2 * row_stripes];
        for (uint32_t i = first; i < count; i += step) {
            places[i] = place_of(i);
        }
        uint32_t writes = 0;
        prepare(face_bytes(quads, 0));
        for (uint32_t tile = 0; tile < own; ++tile) {
            wait(tile + 1);
            for (uint32_t column = first; column < 2; column += step) {
                const uint32_t block = 2 * (first_tile + tile) + column;
                for (uint32_t half = 0; half < count / row_stripes; ++half) {
                    const Place& place = places[half * row_stripes + block % row_stripes];
                    select_core(place);
                    set_register(NOC_AT_LEN_BE, face_bytes(quads, half));
                    write(tiles + tile * tile_size + (half * 2 + column) * face_size,
                          place.rows + block / row_stripes * face_size);
                    ++writes;
                }
            }
        }
        flush(writes);
        for (uint32_t i = first; i < count; i += step) {
            noc_semaphore_inc(places[i].semaphore, 1);
        }
    }

    __attribute__((noinline)) void send_quads(uint32_t tiles, uint32_t quads, uint32_t first, uint32_t step) const {
        prepare(quarter_face_size);
        for (uint32_t i = first; i < quads; i += step) {
            uint32_t quad = start + i;
            while (quad >= quads) {
                quad -= quads;
            }
            const Place place = place_of(quad);
            select_core(place);
            uint32_t from = tiles + quad / face_quads * 2 * face_size + quad % face_quads * quarter_face_size;
            uint32_t to = place.rows + first_tile * 2 * quarter_face_size;
            for (uint32_t tile = 0; tile < own; ++tile) {
                write(from, to);
                write(from + face_size, to + quarter_face_size);
                from += tile_size;
                to += 2 * quarter_face_size;
            }
            flush(2 * own);
            noc_semaphore_inc(place.semaphore, 1);
        }
    }
};

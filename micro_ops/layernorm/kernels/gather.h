// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// What reader and writer of tiles share: rows on their way to the cores that add them up. dest.h says what a quad, a
// quarter face and a stripe are.
//
// Each core of those that share a row of tiles writes what it has of a stripe (or of a quad) into cb_rows of the core
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
constexpr bool rows_are_striped = get_named_compile_time_arg_val("rows_are_striped");  // else by quads
constexpr uint32_t tile_quads = get_named_compile_time_arg_val("tile_quads");
// Of how many quarter faces and faces, or of each quad, have come; of sums; of each quad, of how many rows its statistics have
constexpr uint32_t rows_semaphores = get_named_compile_time_arg_val("rows_semaphores");
constexpr uint32_t sums_semaphore = get_named_compile_time_arg_val("sums_semaphore");
constexpr uint32_t statistics_semaphores = get_named_compile_time_arg_val("statistics_semaphores");

constexpr uint32_t face_quads = 4, chunk_tiles = 4, row_stripes = 8;
constexpr uint32_t quarter_face_size = 64 * input_size, face_size = face_quads * quarter_face_size;  // bytes
constexpr uint32_t tile_size = tile_quads / 2 * face_size;
// A page of an interleaved tensor is a tile, or two of 16 rows: one of 32, whose rows are dealt out so.
constexpr uint32_t page_tiles = get_named_compile_time_arg_val("page_tiles");
constexpr uint32_t page_size = page_tiles * tile_size;
constexpr uint32_t chunk_size = chunk_tiles * 2 * quarter_face_size;  // a page of cb_rows: of a stripe, two faces

// Of a row of tiles: the page of its first one, and where they begin in their pages.
inline uint32_t first_page_of(uint32_t row, uint32_t across) { return row / page_tiles * across; }
inline uint32_t offset_of(uint32_t row) { return row % page_tiles * tile_size; }

// The two processors of a core that has its tiles from the start send every other stripe or quad.
constexpr bool writer_sends = rows_are_gathered && input_is_sharded;

// Stripes of a row of tiles with so many quads: those of its upper faces, then of its lower ones.
inline uint32_t stripes_of(uint32_t quads) { return quads > face_quads ? 2 * row_stripes : row_stripes; }

// A core that adds up a stripe or a quad, or makes a quad's statistics, from a runtime argument: its coordinates, and how many
// pages of that core's are in front of this stripe's or quad's.
struct Peer {
    uint32_t word;
    uint32_t pages_in_front() const { return word >> 16; }
    uint64_t address(uint32_t l1) const { return get_noc_addr(word & 0xff, word >> 8 & 0xff, l1); }
    uint32_t coordinate() const { return coordinate_register(address(0)); }
};

// Writes of one size to other cores, by the command buffer's registers (receivers.h).
struct Writes {
    uint32_t count = 0;

    __attribute__((always_inline)) explicit Writes(uint32_t size) {
        wait_for_registers();
        noc_write_init_state<write_cmd_buf, CQ_NOC_mkp>(noc_index, NOC_UNICAST_WRITE_VC);
        set_register(NOC_AT_LEN_BE, size);
    }
    __attribute__((always_inline)) void select(Peer peer) const {
        wait_for_registers();
        set_register(NOC_RET_ADDR_COORDINATE, peer.coordinate());
    }
    __attribute__((always_inline)) void write(uint32_t from, uint32_t to) {
        wait_for_registers();
        set_register(NOC_TARG_ADDR_LO, from);
        set_register(NOC_RET_ADDR_LO, to);
        set_register(NOC_CMD_CTRL, NOC_CTRL_SEND_REQ);
        ++count;
    }
    // Waits until all have left.
    __attribute__((always_inline)) void flush() {
        noc_nonposted_writes_num_issued[noc_index] += count;
        noc_nonposted_writes_acked[noc_index] += count;
        count = 0;
        noc_async_writes_flushed();
    }
};

// Increments semaphore `id` of `count` cores: the first by the call that sets all registers, the others by what differs.
__attribute__((always_inline)) inline void increment(uint32_t id, const Peer* peers, uint32_t count) {
    noc_semaphore_inc(peers->address(get_semaphore(id)), 1);
    for (uint32_t i = 1; i < count; ++i) {
        const uint32_t coordinate = peers[i].coordinate();
        while (!noc_cmd_buf_ready(noc_index, write_at_cmd_buf)) {
        }
        NOC_CMD_BUF_WRITE_REG(noc_index, write_at_cmd_buf, NOC_TARG_ADDR_COORDINATE, coordinate);
        NOC_CMD_BUF_WRITE_REG(noc_index, write_at_cmd_buf, NOC_CMD_CTRL, NOC_CTRL_SEND_REQ);
    }
    noc_nonposted_atomics_acked[noc_index] += count - 1;
}

// Where this core's tiles are, and what it sends of them to whom.
struct Sender {
    uint32_t across, own, first_tile;  // tiles of a row, this core's of it, and the first of those
    uint32_t adders;                   // the runtime argument that has the core that adds up stripe or quad 0, then 1, ...
    uint32_t start;  // the stripe or quad that this core sends first: else all would send to one at a time. Not of tiles
                     // that are still being made, which come in their own order, from another stripe on on each core

    // Pages of cb_rows that a stripe or a quad takes.
    uint32_t pages() const {
        constexpr uint32_t tiles = rows_are_striped ? row_stripes : chunk_tiles;  // of a row, of which a page has a share
        return (across + tiles - 1) / tiles;
    }

    // Sends of a row of `quads` quads, of the tiles that begin at `tiles`, the (start + first)th stripe, the (start + first +
    // step)th, ..., the last one followed by the first; or the quads. `wait(n)` returns when n of this core's tiles
    // are there.
    template <class Wait>
    __attribute__((always_inline)) void send(
        uint32_t tiles, uint32_t quads, uint32_t first, uint32_t step, Wait wait) const {
        if constexpr (has_residual) {
            if constexpr (rows_are_striped) {
                send_stripes_as_made(tiles, quads, first, step, wait);
            } else {
                send_quads_as_made(tiles, quads, first, step, wait);
            }
        } else if constexpr (rows_are_striped) {
            send_stripes(tiles, quads, first, step);
        } else {
            send_quads(tiles, quads, first, step);
        }
    }

private:
    __attribute__((always_inline)) Peer adder(uint32_t i) const { return {get_arg_val<uint32_t>(adders + i)}; }

    // Bytes of a face in the `half` of a row of tiles, without quads of padding.
    __attribute__((always_inline)) static uint32_t face_bytes(uint32_t quads, uint32_t half) {
        const uint32_t left = quads < half * face_quads ? 0 : quads - half * face_quads;
        return (left < face_quads ? left : face_quads) * quarter_face_size;
    }

    // The reader sends every other column of faces, the writer the others, if that sends, too: then `step` is 2.
    __attribute__((noinline)) void send_stripes(uint32_t tiles, uint32_t quads, uint32_t first, uint32_t step) const {
        const uint32_t halves = stripes_of(quads) / row_stripes, rows = get_write_ptr(cb_rows);
        const uint32_t first_column = 2 * first_tile, columns = 2 * own, sizes[2] = {face_bytes(quads, 0), face_bytes(quads, 1)};
        Peer peers[2 * row_stripes];
        Peer* end = peers;
        Writes writes(sizes[0]);
        for (uint32_t i = first; i < row_stripes; i += step) {
            const uint32_t stripe = (start + i) % row_stripes;
            uint32_t column = (stripe - first_column) % row_stripes;  // the first one of this core's in the stripe
            uint32_t from = tiles + column / 2 * tile_size + column % 2 * face_size;
            uint32_t to = rows + (first_column + column) / row_stripes * face_size;
            for (uint32_t half = 0; half < halves; ++half) {
                const Peer peer = adder(stripe + half * row_stripes);
                *end++ = peer;
                const uint32_t there = to + peer.pages_in_front() * chunk_size;
                writes.select(peer);
                if (sizes[0] != sizes[1]) {
                    set_register(NOC_AT_LEN_BE, sizes[half]);
                }
                for (uint32_t at = column, f = from, t = there; at < columns; at += row_stripes) {
                    writes.write(f, t);
                    f += row_stripes / 2 * tile_size;
                    t += face_size;
                }
                from += 2 * face_size;
            }
        }
        writes.flush();
        increment(rows_semaphores, peers, end - peers);
    }

    // The same of tiles that are still being made: all faces of one, then of the next.
    template <class Wait>
    __attribute__((always_inline)) void send_stripes_as_made(
        uint32_t tiles, uint32_t quads, uint32_t first, uint32_t step, Wait wait) const {
        const uint32_t halves = stripes_of(quads) / row_stripes, rows = get_write_ptr(cb_rows);
        const uint32_t sizes[2] = {face_bytes(quads, 0), face_bytes(quads, 1)};
        Peer peers[2 * row_stripes];
        uint32_t count = 0;
        for (uint32_t stripe = first; stripe < halves * row_stripes; stripe += step) {
            peers[count++] = adder(stripe);
        }
        Writes writes(sizes[0]);
        for (uint32_t tile = 0; tile < own; ++tile) {
            wait(tile + 1);
            for (uint32_t column = 2 * tile + first; column < 2 * tile + 2; column += step) {
                const uint32_t block = 2 * first_tile + column;
                for (uint32_t half = 0; half < halves; ++half) {
                    const Peer peer = peers[(half * row_stripes + block % row_stripes) / step];
                    writes.select(peer);
                    if (sizes[0] != sizes[1]) {
                        set_register(NOC_AT_LEN_BE, sizes[half]);
                    }
                    writes.write(tiles + tile * tile_size + (half * 2 + column % 2) * face_size,
                                 rows + peer.pages_in_front() * chunk_size + block / row_stripes * face_size);
                }
            }
        }
        writes.flush();
        increment(rows_semaphores, peers, count);
    }

    __attribute__((noinline)) void send_quads(uint32_t tiles, uint32_t quads, uint32_t first, uint32_t step) const {
        const uint32_t rows = get_write_ptr(cb_rows) + first_tile * 2 * quarter_face_size;
        Writes writes(quarter_face_size);
        for (uint32_t i = first; i < quads; i += step) {
            uint32_t quad = start + i;
            while (quad >= quads) {
                quad -= quads;
            }
            const Peer peer = adder(quad);
            uint32_t from = tiles + from_quad(quad), to = rows + peer.pages_in_front() * chunk_size;
            writes.select(peer);
            for (uint32_t tile = 0; tile < own; ++tile) {
                writes.write(from, to);
                writes.write(from + face_size, to + quarter_face_size);
                from += tile_size;
                to += 2 * quarter_face_size;
            }
            writes.flush();
            increment_of_quad(peer);
        }
    }

    template <class Wait>
    __attribute__((always_inline)) void send_quads_as_made(
        uint32_t tiles, uint32_t quads, uint32_t first, uint32_t step, Wait wait) const {
        const uint32_t rows = get_write_ptr(cb_rows) + first_tile * 2 * quarter_face_size;
        Peer peers[tile_quads];
        for (uint32_t quad = first; quad < quads; quad += step) {
            peers[quad] = adder(quad);
        }
        Writes writes(quarter_face_size);
        for (uint32_t tile = 0; tile < own; ++tile) {
            wait(tile + 1);
            for (uint32_t quad = first; quad < quads; quad += step) {
                const uint32_t from = tiles + tile * tile_size + from_quad(quad);
                const uint32_t to =
                    rows + peers[quad].pages_in_front() * chunk_size + tile * 2 * quarter_face_size;
                writes.select(peers[quad]);
                writes.write(from, to);
                writes.write(from + face_size, to + quarter_face_size);
            }
        }
        writes.flush();
        for (uint32_t quad = first; quad < quads; quad += step) {
            increment_of_quad(peers[quad]);
        }
    }

    // From a tile's start to a quad's first quarter face.
    __attribute__((always_inline)) static uint32_t from_quad(uint32_t quad) {
        return quad / face_quads * 2 * face_size + quad % face_quads * quarter_face_size;
    }

    // Each of an adder's quads has a semaphore of its own.
    __attribute__((always_inline)) void increment_of_quad(Peer peer) const {
        uint32_t id = rows_semaphores;
        for (uint32_t in_front = peer.pages_in_front(); in_front != 0; in_front -= pages()) {
            ++id;
        }
        noc_semaphore_inc(peer.address(get_semaphore(id)), 1);
    }
};

// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// What the three threads know of rows that come as tiles. dest.h says what a quad and a quarter face are.
#pragma once

#include "dest.h"

namespace layernorm {

constexpr uint32_t cb_rows = get_named_compile_time_arg_val("cb_rows");
constexpr uint32_t cb_sums = get_named_compile_time_arg_val("cb_sums");

constexpr uint32_t tile_quads = get_named_compile_time_arg_val("tile_quads");  // 8, or 4 where a tile has 16 rows
constexpr uint32_t tile_faces = tile_quads / 2;
constexpr uint32_t tile_half_faces = 2 * tile_faces;
constexpr uint32_t face_quads = 4;
constexpr uint32_t face_elements = 256, quarter_face_elements = 64;
constexpr uint32_t chunk_tiles = piece_half_faces;  // of a quad in the sources at once, a half face of each
constexpr uint32_t row_stripes = 8, chunk_faces = 2;  // of a stripe in the sources at once
constexpr uint32_t chips = get_named_compile_time_arg_val("chips");  // whose statistics are taken
static_assert(!takes_statistics || chips_dest_row + chips * chip_dest_rows <= statistics_dest_row,
              "budget of Dest rows (tile_compute.cpp): chips' statistics lie in the place of the sums");
static_assert(chunk_tiles == 4, "a quad's 128 partial sums are those of 4 tiles");
static_assert(tap == Tap::none, "taps are of sticks");

// What a core does of `rows` rows of tiles, all of which have `across` tiles, of which it normalizes `own`.
struct Tiles {
    uint32_t rows, across, own;
    uint32_t row_pages;                // of cb_source and a cb_output over shards, from a row to the next
    uint32_t term_pages, ring_terms;   // of cb_input and cb_residual, where s is made: from a row to the next, and in all
    uint32_t rows_pages, sums_pages;   // that cb_rows and cb_sums hold: other cores fill them from their start on, so each
                                       // row's are waited for and popped all
    uint32_t quads, last_quads;        // of a row of tiles, and of the last one
    uint32_t first_stripe, stripe_stride;  // this core adds up the stripes first_stripe, first_stripe + stripe_stride, ...
    uint32_t first_quad, quad_stride;      // and makes the statistics of the quads first_quad, ..., likewise
    uint32_t quads_of(uint32_t row) const { return row + 1 == rows ? last_quads : quads; }
    // Those of a row's upper faces, and those of its lower ones if these are not padding alone.
    uint32_t stripes_of(uint32_t row) const { return quads_of(row) > face_quads ? 2 * row_stripes : row_stripes; }
};

// Tiles of a row that are brought into sections before its statistics have come.
inline uint32_t tiles_ahead(const Tiles& tiles) { return tiles.own < sections ? tiles.own : sections; }

// Tiles in chunk `index` of a quad.
inline uint32_t tiles_of_chunk(const Tiles& tiles, uint32_t index) {
    const uint32_t left = tiles.across - index * chunk_tiles;
    return left < chunk_tiles ? left : chunk_tiles;
}

inline uint32_t chunks(const Tiles& tiles) { return (tiles.across + chunk_tiles - 1) / chunk_tiles; }

}  // namespace layernorm

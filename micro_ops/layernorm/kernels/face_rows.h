// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// What the two writers share where the result has another layout than the input: sticks that go to tiles, and tiles that go
// to sticks. A row goes in *face rows*, the 16 elements that a face has of it: 32 bytes of bfloat16, 64 of float32, which both
// layouts keep in one piece. So a write takes no more, and a row of 7,168 elements 448 writes.
#pragma once

#include <cstdint>

#include "api/dataflow/dataflow_api.h"

constexpr uint32_t face_row = 16, face = 16 * face_row;  // elements

// A tensor's rows, of matrices (its last two dimensions) of `rows`, each of which is padded to whole tiles.
struct Matrices {
    uint32_t rows, tile_height;

    // Rows of tiles of a matrix.
    uint32_t tile_rows() const { return (rows + tile_height - 1) / tile_height; }
    // The row of tiles that has a row, and which row of its tiles that is.
    uint32_t tile_row(uint32_t row) const { return row / rows * tile_rows() + row % rows / tile_height; }
    uint32_t row_in_tile(uint32_t row) const { return row % rows % tile_height; }
    // The first row of a row of tiles, and how many rows are no padding.
    uint32_t first_row(uint32_t tile_row) const {
        return tile_row / tile_rows() * rows + tile_row % tile_rows() * tile_height;
    }
    uint32_t row_count(uint32_t tile_row) const {
        const uint32_t left = rows - tile_row % tile_rows() * tile_height;
        return left < tile_height ? left : tile_height;
    }
};

// Elements of a tile in front of a row's part in the left face; that in the right one is a face further on.
__attribute__((always_inline)) inline uint32_t in_tile(uint32_t row) { return row / 16 * 2 * face + row % 16 * face_row; }

// Writes one or both parts of a row of a tile, of which `size` bytes are no padding; `source_step` and `target_step` are the
// bytes from the left part to the right one.
template <uint32_t element_size>
__attribute__((always_inline)) inline void write_face_rows(
    uint32_t source, uint32_t source_step, uint64_t target, uint32_t target_step, uint32_t size) {
    constexpr uint32_t most = face_row * element_size;
    noc_async_write<most>(source, target, size < most ? size : most);
    if (size > most) {
        noc_async_write<most>(source + source_step, target + target_step, size - most);
    }
}

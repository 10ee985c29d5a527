// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// What reader and writer share: sticks, gamma and beta on their way from DRAM to L1, in parts, so that compute can start
// on the first part before the others have arrived.
#pragma once

#include <cstdint>

#include "api/dataflow/dataflow_api.h"
#include "agreement.h"

constexpr uint32_t cb_gamma = get_named_compile_time_arg_val("cb_gamma");
constexpr uint32_t cb_beta = get_named_compile_time_arg_val("cb_beta");
constexpr bool has_gamma = get_named_compile_time_arg_val("has_gamma");
constexpr bool has_beta = get_named_compile_time_arg_val("has_beta");
constexpr uint32_t gamma_piece = get_named_compile_time_arg_val("gamma_piece");  // bytes
constexpr uint32_t beta_piece = get_named_compile_time_arg_val("beta_piece");
constexpr uint32_t gamma_size = get_named_compile_time_arg_val("gamma_size");  // of an element, bytes
constexpr uint32_t beta_size = get_named_compile_time_arg_val("beta_size");
// A weight is one page, or pages of so many bytes that follow one another in DRAM's banks, the first of them empty.
constexpr bool gamma_is_paged = get_named_compile_time_arg_val("gamma_is_paged");
constexpr bool beta_is_paged = get_named_compile_time_arg_val("beta_is_paged");
constexpr uint32_t gamma_page = get_named_compile_time_arg_val("gamma_page");
constexpr uint32_t beta_page = get_named_compile_time_arg_val("beta_page");

constexpr bool reader_reads_weights = get_named_compile_time_arg_val("reader_reads_weights");  // else the writer does
constexpr uint32_t max_parts = get_named_compile_time_arg_val("max_parts");

// Calls part(index, pages) for each part of `pages`; the last one may have fewer than `part_pages`.
template <class Part>
__attribute__((always_inline)) inline void for_each_part(uint32_t pages, uint32_t part_pages, Part part) {
    for (uint32_t index = 0;; ++index) {
        const uint32_t count = pages < part_pages ? pages : part_pages;
        part(index, count);
        pages -= count;
        if (pages == 0) {
            return;
        }
    }
}

// Reads the next part of a stick; the caller asks for no more parts than it has.
struct Stick {
    uint64_t source;
    uint32_t address, left;
    void read(uint32_t part_size) {
        noc_async_read(source, address, left < part_size ? left : part_size);
        source += part_size;
        address += part_size;
        left -= part_size;
    }
};

// This core's columns of gamma or beta, which begin with a page.
template <class Pages, bool is_paged, uint32_t page_size>
struct Weight {
    Pages pages;
    uint32_t page;  // the next to read
    Stick stick;

    // Reads the next `size` bytes, or as many as are left; or as many more as end with a page.
    __attribute__((always_inline)) void read(uint32_t size) {
        if constexpr (is_paged) {
            static_assert(page_size <= NOC_MAX_BURST_SIZE, "a page of gamma or beta is read as one packet");
            for (uint32_t done = 0; done < size && stick.left > 0; done += page_size) {
                const uint32_t count = stick.left < page_size ? stick.left : page_size;
                noc_async_read<page_size>(pages.get_noc_addr(page++), stick.address, count);
                stick.address += count;
                stick.left -= count;
            }
        } else {
            stick.read(size);
        }
    }
};

// Reads gamma and beta, part p under transaction id `first_trid` + p.
template <uint32_t first_trid, class GammaArgs, class BetaArgs>
__attribute__((always_inline)) inline void read_weights(
    GammaArgs gamma_args, BetaArgs beta_args, uint32_t gamma_address, uint32_t beta_address, uint32_t first_step,
    uint32_t own_steps, uint32_t own_columns, uint32_t part_pages, bool reads_gamma, bool reads_beta) {
    const uint32_t gamma_at = first_step * gamma_piece, beta_at = first_step * beta_piece;
    const auto gamma = TensorAccessor(gamma_args, gamma_address, gamma_page);
    const auto beta = TensorAccessor(beta_args, beta_address, beta_page);
    Weight<decltype(gamma), gamma_is_paged, gamma_page> gamma_left{
        gamma, 1 + gamma_at / gamma_page,
        {gamma_is_paged ? 0 : gamma.get_noc_addr(0, gamma_at), get_write_ptr(cb_gamma), own_columns * gamma_size}};
    Weight<decltype(beta), beta_is_paged, beta_page> beta_left{
        beta, 1 + beta_at / beta_page,
        {beta_is_paged ? 0 : beta.get_noc_addr(0, beta_at), get_write_ptr(cb_beta), own_columns * beta_size}};
    ASSERT(own_columns * gamma_size <= own_steps * gamma_piece);
    for_each_part(own_steps, part_pages, [&](uint32_t part, uint32_t) __attribute__((always_inline)) {
        noc_async_read_set_trid(first_trid + part);
        if (has_gamma && reads_gamma) {
            gamma_left.read(part_pages * gamma_piece);
        }
        if (has_beta && reads_beta) {
            beta_left.read(part_pages * beta_piece);
        }
    });
}

// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// What reader and writer share: operands on their way to L1 in parts, so that compute can start on the first part before
// the others have arrived; from DRAM, or from another core.
//
// Between cores: a row that several cores share is read from DRAM by one of them; each part of gamma and beta by one of the
// cores that have the same columns. That core multicasts the part to the same place in the others' L1, and then a number
// into a semaphore there. The two arrive in this order, because they leave by one command buffer and one virtual channel.
// Nobody waits for room: these parts are the first to be written to their CBs, which are empty when a launch starts.
#pragma once

#include <cstdint>

#include "api/dataflow/dataflow_api.h"
#include "agreement.h"

constexpr uint32_t max_parts = get_named_compile_time_arg_val("max_parts");
constexpr uint32_t max_rectangles = get_named_compile_time_arg_val("max_rectangles");
constexpr uint32_t counts = get_named_compile_time_arg_val("counts");  // the first of the semaphores that hold 1, 2, ...

// Pages of a part, of as many parts as there may be.
__attribute__((always_inline)) inline uint32_t part_of(uint32_t pages) {
    return (pages + max_parts - 1) / max_parts;
}

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

__attribute__((always_inline)) inline volatile tt_l1_ptr uint32_t* semaphore(uint32_t id) {
    return reinterpret_cast<volatile tt_l1_ptr uint32_t*>(get_semaphore(id));
}

// Cores that this one sends to: rectangles with nothing else in them. Multicasts are made in the command buffer's registers,
// one of them while DRAM still delivers its data: two calls of dataflow_api.h would take the RISC-V core longer than a part
// takes DRAM.
class Receivers {
    struct Rectangle {
        uint32_t coordinates;  // of a multicast's receivers, as the NoC's register holds them
        uint32_t cores;
    };
    Rectangle rectangles[max_rectangles];
    const Rectangle* end;

    __attribute__((always_inline)) static void set(uint32_t reg, uint32_t value) {
        NOC_CMD_BUF_WRITE_REG(noc_index, write_cmd_buf, reg, value);
    }

    // Makes a multicast to `to` ready, once the one before has left the registers.
    __attribute__((always_inline)) static void prepare(
        const Rectangle& to, uint32_t source, uint32_t destination, uint32_t size) {
        while (!noc_cmd_buf_ready(noc_index, write_cmd_buf)) {
        }
        set(NOC_TARG_ADDR_LO, source);
        set(NOC_RET_ADDR_LO, destination);
        set(NOC_AT_LEN_BE, size);
        set(NOC_RET_ADDR_COORDINATE, to.coordinates);
    }

    __attribute__((always_inline)) static void send(const Rectangle& to) {
        set(NOC_CMD_CTRL, NOC_CTRL_SEND_REQ);
        noc_nonposted_writes_num_issued[noc_index] += 1;
        noc_nonposted_writes_acked[noc_index] += to.cores;
    }

   public:
    // From two runtime arguments a rectangle, from the `argument`th on.
    __attribute__((always_inline)) Receivers(uint32_t argument, uint32_t count) : end(rectangles + count) {
        for (Rectangle* r = rectangles; r != end; ++r) {
            const uint32_t corners = get_arg_val<uint32_t>(argument++);
            const uint64_t address =
                get_noc_multicast_addr(corners & 0xff, corners >> 8 & 0xff, corners >> 16 & 0xff, corners >> 24, 0);
            r->coordinates = static_cast<uint32_t>(address >> NOC_ADDR_COORD_SHIFT) & NOC_COORDINATE_MASK;
            r->cores = get_arg_val<uint32_t>(argument++);
        }
        noc_write_init_state<write_cmd_buf, CQ_NOC_Mkp>(noc_index, NOC_MULTICAST_WRITE_VC);
    }

    // Writes `size` bytes from `data` on to the same place of each core, and then `count` to semaphore `id` there; when
    // `wait` returns, which it does when the data is in L1.
    template <class Wait>
    __attribute__((always_inline)) void multicast(
        uint32_t data, uint32_t size, uint32_t count, uint32_t id, Wait wait) const {
        const uint32_t number = get_semaphore(counts + count - 1), semaphore = get_semaphore(id);
        for (; size > NOC_MAX_BURST_SIZE; data += NOC_MAX_BURST_SIZE, size -= NOC_MAX_BURST_SIZE) {
            wait();
            for (const Rectangle* r = rectangles; r != end; ++r) {
                prepare(*r, data, data, NOC_MAX_BURST_SIZE);
                send(*r);
            }
        }
        prepare(*rectangles, data, data, size);
        wait();
        for (const Rectangle* r = rectangles;;) {
            send(*r);
            prepare(*r, number, semaphore, sizeof(uint32_t));
            send(*r);
            if (++r == end) {
                return;
            }
            prepare(*r, data, data, size);
        }
    }
};

// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// Cores that a core multicasts to, and the semaphores that tell them what has arrived.
#pragma once

#include <cstdint>

#include "api/dataflow/dataflow_api.h"

constexpr uint32_t max_rectangles = get_named_compile_time_arg_val("max_rectangles");

__attribute__((always_inline)) inline volatile tt_l1_ptr uint32_t* semaphore(uint32_t id) {
    return reinterpret_cast<volatile tt_l1_ptr uint32_t*>(get_semaphore(id));
}

// The registers of the command buffer by which writes go, for many that differ little: calls of dataflow_api.h, which set
// them all, would take the RISC-V core longer than the NoC takes the data.
__attribute__((always_inline)) inline void set_register(uint32_t reg, uint32_t value) {
    NOC_CMD_BUF_WRITE_REG(noc_index, write_cmd_buf, reg, value);
}
__attribute__((always_inline)) inline void wait_for_registers() {
    while (!noc_cmd_buf_ready(noc_index, write_cmd_buf)) {
    }
}
__attribute__((always_inline)) inline uint32_t coordinate_register(uint64_t noc_address) {
    return static_cast<uint32_t>(noc_address >> NOC_ADDR_COORD_SHIFT) & NOC_COORDINATE_MASK;
}

// Cores that this one sends to: rectangles with nothing else in them. A multicast is made ready while DRAM still delivers
// its data.
class Receivers {
    struct Rectangle {
        uint32_t coordinates;  // of a multicast's receivers, as the NoC's register holds them
        uint32_t cores;
    };
    Rectangle rectangles[max_rectangles];
    const Rectangle* end;

    // Makes a multicast to `to` ready, once the one before has left the registers.
    __attribute__((always_inline)) static void prepare(
        const Rectangle& to, uint32_t source, uint32_t destination, uint32_t size) {
        wait_for_registers();
        set_register(NOC_TARG_ADDR_LO, source);
        set_register(NOC_RET_ADDR_LO, destination);
        set_register(NOC_AT_LEN_BE, size);
        set_register(NOC_RET_ADDR_COORDINATE, to.coordinates);
    }

    __attribute__((always_inline)) static void send(const Rectangle& to) {
        set_register(NOC_CMD_CTRL, NOC_CTRL_SEND_REQ);
        noc_nonposted_writes_num_issued[noc_index] += 1;
        noc_nonposted_writes_acked[noc_index] += to.cores;
    }

   public:
    uint32_t count() const { return end - rectangles; }

    // From two runtime arguments a rectangle, from the `argument`th on.
    __attribute__((always_inline)) Receivers(uint32_t argument, uint32_t count) : end(rectangles + count) {
        for (Rectangle* r = rectangles; r != end; ++r) {
            const uint32_t corners = get_arg_val<uint32_t>(argument++);
            const uint64_t address =
                get_noc_multicast_addr(corners & 0xff, corners >> 8 & 0xff, corners >> 16 & 0xff, corners >> 24, 0);
            r->coordinates = coordinate_register(address);
            r->cores = get_arg_val<uint32_t>(argument++);
        }
        prepare_command_buffer();
    }

    // To be called again when other writes have gone by the command buffer.
    __attribute__((always_inline)) void prepare_command_buffer() const {
        noc_write_init_state<write_cmd_buf, CQ_NOC_Mkp>(noc_index, NOC_MULTICAST_WRITE_VC);
    }

    // Writes `size` bytes from `from` on to `to` of each core, and then the number at `number` to semaphore `id` there; when
    // `wait` returns, which it does when the data is in L1.
    template <class Wait>
    __attribute__((always_inline)) void multicast(
        uint32_t from, uint32_t to, uint32_t size, uint32_t number, uint32_t id, Wait wait) const {
        const uint32_t semaphore = get_semaphore(id);
        for (; size > NOC_MAX_BURST_SIZE; size -= NOC_MAX_BURST_SIZE) {
            wait();
            for (const Rectangle* r = rectangles; r != end; ++r) {
                prepare(*r, from, to, NOC_MAX_BURST_SIZE);
                send(*r);
            }
            from += NOC_MAX_BURST_SIZE;
            to += NOC_MAX_BURST_SIZE;
        }
        prepare(*rectangles, from, to, size);
        wait();
        for (const Rectangle* r = rectangles;;) {
            send(*r);
            prepare(*r, number, semaphore, sizeof(uint32_t));
            send(*r);
            if (++r == end) {
                return;
            }
            prepare(*r, from, to, size);
        }
    }
};

// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// Compute of the semaphores' test: what an earlier kernel left of MATH_PACK and PACK_DONE.
//
// CB contract: pushes cb_out, one page -> sfpu_writer.cpp. Word 0 and 1: whether MATH_PACK and PACK_DONE are at their
// maximum when they are 1. Runtime argument: a value to leave in UNPACK_MATH_DONE, for the next kernel to find.
#include <cstdint>

#include "api/compute/common.h"

using namespace ckernel;

constexpr uint32_t cb_out = 16;
constexpr uint32_t passed = semaphore::UNPACK_MATH_DONE;  // by the math thread, when it no longer waits
constexpr uint32_t polls = 200;

// The math thread raises a semaphore to 1 and waits as long as that is its maximum.
template <uint32_t tested>
void raise_and_wait() {
    t6_semaphore_post(tested);
    t6_semaphore_wait_on_max<p_stall::STALL_SYNC>(tested);
    t6_semaphore_post(passed);
}

template <uint32_t tested>
uint32_t is_at_maximum() {
    while (semaphore_read(tested) == 0) {
    }
    uint32_t waits = 1;
    for (uint32_t i = 0; i < polls; ++i) {
        waits &= semaphore_read(passed) == 0;
    }
    t6_semaphore_get(tested);
    while (semaphore_read(passed) == 0) {
    }
    t6_semaphore_get(passed);
    return waits;
}

void kernel_main() {
    const uint32_t left = get_arg_val<uint32_t>(0);
#ifdef TRISC_MATH
    t6_semaphore_init(passed, 0, semaphore::SEMAPHORE_MAX_VALUE);
    raise_and_wait<semaphore::MATH_PACK>();
    while (semaphore_read(semaphore::MATH_PACK) != 0) {
    }
    raise_and_wait<semaphore::PACK_DONE>();
#endif
#ifdef TRISC_PACK
    cb_reserve_back(cb_out, 1);
    volatile uint32_t* words = reinterpret_cast<volatile uint32_t*>(get_local_cb_interface(cb_out).fifo_wr_ptr << 4);
    words[0] = is_at_maximum<semaphore::MATH_PACK>();
    words[1] = is_at_maximum<semaphore::PACK_DONE>();
    cb_push_back(cb_out, 1);
    for (uint32_t i = 0; i < left; ++i) {
        t6_semaphore_post(passed);
    }
#endif
}

// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// SFPI, the C++ interface of the Tensix SFPU, for a stock RISC-V GCC.
//
// Names and meaning follow Tenstorrent's public SFPI API; the code is our own and covers what ttnn's norm kernels,
// common element-wise ops and our own kernels use. A call that is not covered is a compile or link error that names
// it, never other code.
//
// A vector is 32 lanes of 32 bits in one of eight LREGs. GCC sees it as a float in ft0-ft7, and each SFPU operation
// as an `asm volatile` on such floats, so GCC's register allocator does what that of SFPI's GCC does.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#define sfpi_inline inline __attribute__((always_inline))

#include "sfpi/constants.h"
#include "sfpi/unmodelled.h"
#include "sfpi/registers.h"
#include "sfpi/types.h"
#include "sfpi/operators.h"
#include "sfpi/conditions.h"
#include "sfpi/library.h"

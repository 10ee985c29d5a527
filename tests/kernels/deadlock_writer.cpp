// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// Writer (BRISC) of the tests of hung devices.
//
// CB contract: waits for a page of CB 0, into which no kernel pushes one.
#include "api/dataflow/dataflow_api.h"

void kernel_main() { cb_wait_front(0, 1); }

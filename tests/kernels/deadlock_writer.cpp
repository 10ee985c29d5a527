// Writer (BRISC) of the tests of hung devices.
//
// CB contract: waits for a page of CB 0, into which no kernel pushes one.
#include "api/dataflow/dataflow_api.h"

void kernel_main() { cb_wait_front(0, 1); }

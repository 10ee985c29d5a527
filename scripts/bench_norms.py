#!/usr/bin/env python3
from commands.bench_norms import run

run()

#!/usr/bin/env python3
from commands.sweep_norms import run

run()

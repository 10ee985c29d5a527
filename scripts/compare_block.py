#!/usr/bin/env python3
from commands.compare_block import run

run()

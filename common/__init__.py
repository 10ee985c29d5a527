"""What several packages need and none owns: refusals in one line, files written whole, how a command starts."""

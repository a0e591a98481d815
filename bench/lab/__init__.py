"""The laboratory behind bench/run: images, tools, measuring, phases, report."""

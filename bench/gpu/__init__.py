"""What a machine with a GPU is asked to do: build, tests, sanitizers, benchmarks. bench/gpu.sh runs it."""

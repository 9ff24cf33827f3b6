"""llama.cpp's compute graphs and the plan that allocates them."""

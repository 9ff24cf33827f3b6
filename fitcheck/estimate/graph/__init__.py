"""llama.cpp's compute graphs and the plan that allocates them.

``tensors`` builds graphs, ``attention``, ``recurrent`` and ``feed_forward`` describe their parts, ``decoder`` and its
neighbours whole models, ``architectures`` what differs between them, and ``planner`` turns a graph into bytes.
"""

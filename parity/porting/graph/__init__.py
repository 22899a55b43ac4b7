"""A torch model as a graph of operators that can be written one by one."""

"""What a command line or a notebook asks for, carried out; `lcbench` has its public functions."""

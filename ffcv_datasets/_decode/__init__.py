"""The C core: `_core` is built from the .c files beside this one."""

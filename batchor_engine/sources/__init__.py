"""Where items come from: files, frames, and several of them as one."""

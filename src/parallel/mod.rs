//! Threads: the private pool, and loops over tasks on it.
//!
//! | file | what it holds |
//! |---|---|
//! | `pool` | the pool: its size, and what happens to it after `fork` |
//! | `crew` | the pool's threads kept awake from loop to loop of one plan |

mod crew;
mod pool;

pub use crew::{assemble, for_each, for_each_with, workers};
pub use pool::{MAX_THREADS, install, num_threads, set_num_threads};

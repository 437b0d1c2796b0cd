//! Threads: the private pool, and loops over tasks on it.
//!
//! | file | what it holds |
//! |---|---|
//! | `pool` | the pool: its size, and what happens to it after `fork` |
//! | `fill` | loops over results that are computed one by one |
//! | `crew` | threads kept awake from loop to loop of one plan: the caller and members |
//! | `members` | the threads that come when a leader calls |
//! | `place` | the core a sleeping thread wakes up on |
//! | `floats` | the mode in which all of them compute |

mod crew;
mod fill;
mod floats;
mod members;
mod place;
mod pool;

pub use crew::{assemble, for_each, for_each_chunk, for_each_with, lead, workers};
pub use fill::fill;
pub use floats::ieee;
pub use pool::{MAX_THREADS, install, num_threads, set_num_threads};

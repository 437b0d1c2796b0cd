//! Training plans: a network forward, keeping what its way back needs, and backward.
//!
//! [`compile_training`](crate::graph::Graph::compile_training) rewrites the graph as far as training
//! allows (sums, activations and fixed batch norms drawn into layers, ReLU and residual into the batch
//! norm of the batch) and plans the memory of both ways on one time axis:
//!
//! ```text
//! step     0   1   2   ...  F-1 | F   F+1 ...  2F-1      step 2F-1-f goes back through step f
//! value        [=====kept for the way back======]
//! value            [==]                                   nobody needs it again
//! gradient                        [======]                freed by the step that passes it on
//! ```
//!
//! Buffers are shared by what does not live at the same time, so activations give their memory to
//! the gradients as soon as they are used, and the whole of it comes from a pool: in the steady state
//! nothing is allocated. A plan for images of another size goes on in the memory of the one before it
//! ([`TrainingPlan::take_memory`]). Where no trained array lies upstream there is no way back, and
//! layers with frozen weights are packed once, as in plans for evaluation.
//!
//! | file | what it holds |
//! |---|---|
//! | `rewrite` | the passes |
//! | `schedule` | what needs gradients, what is kept, who shares buffers |
//! | `forward` | one step forward |
//! | `backward` | one step backward |
//! | `layer` | convolutions and fully connected layers, both ways |
//! | `executable` | running the steps over an arena |

mod backward;
mod executable;
mod forward;
mod layer;
mod rewrite;
mod schedule;

pub use executable::{Pass, TrainingPlan};

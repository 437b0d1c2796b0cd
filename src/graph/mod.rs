//! Networks as graphs, and plans that run them.
//!
//! A network is traced once into a [`Graph`]: a list of operations over values whose shapes are
//! known but for the batch. [`Graph::compile`] turns it into a [`Plan`]:
//!
//! ```text
//! graph --passes--> fewer operations --placement--> values in rows --memory plan--> buffers
//!                   (fold, fuse)                    (concat in place)               (who shares)
//!       --lowering--> steps with packed weights
//! ```
//!
//! and [`Plan::run`] takes a batch through the steps: no Python, no allocation but the outputs, any
//! number of runs at once. Operations have the meaning and the checks of the eager ones; a plan
//! computes what they do, up to the rounding of folded weights.
//!
//! | file | what it holds |
//! |---|---|
//! | `ir` | values, operations, shapes |
//! | `build` | adding operations: checks and shapes |
//! | `passes` | rewriting: drop, fold, fuse |
//! | `placement` | which values are columns of wider ones |
//! | `memory` | which values share buffers; groups of images |
//! | `packed` | packed layers, shared between plans |
//! | `lower` | from a rewritten graph to steps |
//! | `steps` | one step: kernel, views of its operands, what is said about it |
//! | `executable` | running the steps over an arena |
//! | `pool` | arenas at rest between runs |
//! | `training` | plans that go forward and back |

mod build;
mod executable;
mod ir;
mod lower;
mod memory;
mod packed;
mod passes;
mod placement;
mod pool;
mod steps;
#[cfg(test)]
mod tests;
mod training;

pub use build::ConvArgs;
pub use executable::{Plan, PlanMemory};
pub use ir::{Constant, Graph, Key, Layer, Node, Norm, Op, RandomDrop, Shape, TrainNorm, Value};
pub use packed::PackedWeights;
pub use steps::StepInfo;
pub use training::{Pass, TrainingPlan};

//! What a graph is made of: values, and the operations that compute them.
//!
//! Every node computes one value, and refers to earlier ones only, so that the order of the list is
//! an order to run in. Constants (weights) are numbers into a list that the caller keeps: building
//! and rewriting a graph copies none of them.

use crate::conv::{Activation, Conv2d};
use crate::layers::activation::Function;
use crate::layers::avg_pool::Divisor;
use crate::layers::bilinear::Bilinear2d;
use crate::layers::gather::Gather2d;
use crate::layers::response_norm::ResponseNorm;
use crate::layers::windows::Pool2d;

/// Index of a value, and of the node that computes it.
pub type Value = usize;

/// Index of an array of weights in the list that the caller keeps.
pub type Constant = usize;

/// Identity of the constants of a node, as the caller knows them: (serial, version) of each. An
/// empty list is equal to nothing.
pub type Key = Vec<(u64, u64)>;

/// Shape of a value, without the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// (C, H, W), which lies in memory as (N, H, W, C).
    Image {
        /// C.
        channels: usize,
        /// H.
        height: usize,
        /// W.
        width: usize,
    },
    /// (F,), which lies in memory as (N, F).
    Vector(usize),
}

impl Shape {
    /// C or F: the length of a row.
    pub fn channels(self) -> usize {
        match self {
            Shape::Image { channels, .. } => channels,
            Shape::Vector(features) => features,
        }
    }

    /// H * W, or 1: rows of one image.
    pub fn pixels(self) -> usize {
        match self {
            Shape::Image { height, width, .. } => height * width,
            Shape::Vector(_) => 1,
        }
    }

    /// (H, W), or (1, 1).
    pub fn size(self) -> (usize, usize) {
        match self {
            Shape::Image { height, width, .. } => (height, width),
            Shape::Vector(_) => (1, 1),
        }
    }

    /// Elements of one image.
    pub fn len(self) -> usize {
        self.pixels() * self.channels()
    }

    /// Whether an image has no elements.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The extents, C, H, W or F.
    pub fn extents(self) -> Vec<usize> {
        match self {
            Shape::Image { channels, height, width } => vec![channels, height, width],
            Shape::Vector(features) => vec![features],
        }
    }

    /// The same pixels with another number of channels.
    pub(super) fn with_channels(self, channels: usize) -> Self {
        match self {
            Shape::Image { height, width, .. } => Shape::Image { channels, height, width },
            Shape::Vector(_) => Shape::Vector(channels),
        }
    }
}

/// One operation and the value it computes.
#[derive(Debug, Clone)]
pub struct Node {
    /// What computes the value.
    pub op: Op,
    /// What it reads.
    pub inputs: Vec<Value>,
    /// Shape of the value.
    pub shape: Shape,
    /// The caller's name for it.
    pub name: String,
    /// What passes have drawn into this operation, in order.
    pub fused: Vec<&'static str>,
}

/// An operation.
#[derive(Debug, Clone)]
pub enum Op {
    /// The graph's input of this number.
    Input(usize),
    /// A convolution or a fully connected layer.
    Layer(Box<Layer>),
    /// A batch norm with fixed statistics, and the activation behind it.
    BatchNorm(Norm, Activation),
    /// A function of single elements.
    Map(Function),
    /// The sum of two values, and the activation behind it.
    Add(Activation),
    /// Channels from this one on.
    Channels(usize),
    /// Max pooling.
    MaxPool(Pool2d),
    /// Average pooling.
    AvgPool(Pool2d, Divisor),
    /// Pixels from elsewhere, and the name of the operation that says so.
    Gather(Box<Gather2d>, &'static str),
    /// Bilinear resizing.
    Bilinear(Box<Bilinear2d>),
    /// Local response normalisation.
    ResponseNorm(ResponseNorm),
    /// The inputs' channels one after the other.
    Concat,
    /// (C, H, W) to (C * H * W,), in that order.
    Flatten,
    /// Softmax over the channels, or its logarithm.
    Softmax {
        /// Whether the logarithm is taken.
        log: bool,
    },
    /// Nothing, in evaluation.
    Dropout,
    /// A batch norm in training, or one whose factors are trained; in training plans only.
    TrainNorm(Box<TrainNorm>),
    /// Dropout in training; in training plans only.
    RandomDrop(RandomDrop),
    /// A copy: an output that no step writes by itself.
    Copy,
    /// Nothing any more: a pass took it away.
    Gone,
}

/// A convolution or fully connected layer, and what is applied to its sums.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Geometry of one image. A fully connected layer is a convolution whose window is its input.
    pub conv: Conv2d,
    /// The weights.
    pub weight: Constant,
    /// Whether the weights are (out, in), `in` in C, H, W order, rather than (kh, kw, C / groups, O).
    pub linear: bool,
    /// Added to each output channel.
    pub bias: Option<Constant>,
    /// Identity of weight and bias.
    pub key: Key,
    /// The batch norm behind it.
    pub norm: Option<Norm>,
    /// Factor and summand of all that, where the network scales the result.
    pub scale: Option<(f32, f32)>,
    /// Whether the node's second input is added to the sums.
    pub residual: bool,
    /// The function applied last.
    pub activation: Activation,
}

/// A batch norm's constants.
#[derive(Debug, Clone)]
pub struct Norm {
    /// Mean of each channel.
    pub mean: Constant,
    /// Variance of each channel.
    pub var: Constant,
    /// Factor of each channel.
    pub weight: Option<Constant>,
    /// Summand of each channel.
    pub bias: Option<Constant>,
    /// Added to the variances.
    pub eps: f64,
    /// Identity of the constants.
    pub key: Key,
    /// Whether it is no batch norm but a factor and a summand for each channel, with mean 0,
    /// variance 1 and no eps.
    pub affine: bool,
}

/// A batch norm of which something is learned: by the statistics of the batch, or by fixed ones but
/// with factors that are trained.
#[derive(Debug, Clone)]
pub struct TrainNorm {
    /// Which of the graph's batch norms it is.
    pub number: usize,
    /// Factor of each channel.
    pub weight: Option<Constant>,
    /// Summand of each channel.
    pub bias: Option<Constant>,
    /// Fixed mean and variance; `None` for those of the batch.
    pub running: Option<(Constant, Constant)>,
    /// Added to the variances.
    pub eps: f64,
    /// Whether the node's second input is added.
    pub residual: bool,
    /// The function applied last.
    pub activation: Activation,
}

/// A dropout, whose masks are numbered in the order of a run.
#[derive(Debug, Clone, Copy)]
pub struct RandomDrop {
    /// Probability of 0.
    pub p: f64,
    /// Which of the run's masks.
    pub number: usize,
    /// Whether whole channels of an image are dropped.
    pub channels: bool,
}

impl Norm {
    /// The name that plans show.
    pub(super) fn name(&self) -> &'static str {
        if self.affine { "affine" } else { "batch_norm" }
    }
}

impl Op {
    /// Whether only training plans know it.
    pub(super) fn is_training(&self) -> bool {
        matches!(self, Op::TrainNorm(_) | Op::RandomDrop(_))
    }

    /// The name that plans show.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input(_) => "input",
            Op::Layer(layer) if layer.linear => "linear",
            Op::Layer(_) => "conv2d",
            Op::BatchNorm(norm, _) => norm.name(),
            Op::Map(Function::Clamp(Activation::Identity)) => "identity",
            Op::Map(Function::Clamp(activation)) => activation_name(*activation),
            Op::Map(Function::Sigmoid) => "sigmoid",
            Op::Map(Function::Tanh) => "tanh",
            Op::Map(Function::Scale(..)) => "scale",
            Op::Add(_) => "add",
            Op::Channels(_) => "channels",
            Op::MaxPool(_) => "max_pool2d",
            Op::AvgPool(..) => "avg_pool2d",
            Op::Gather(_, name) => name,
            Op::Bilinear(_) => "interpolate",
            Op::ResponseNorm(_) => "local_response_norm",
            Op::Concat => "concat",
            Op::Flatten => "flatten",
            Op::Softmax { log: false } => "softmax",
            Op::Softmax { log: true } => "log_softmax",
            Op::Dropout | Op::RandomDrop(_) => "dropout",
            Op::TrainNorm(_) => "batch_norm",
            Op::Copy => "copy",
            Op::Gone => "gone",
        }
    }
}

/// The name that plans show.
pub(super) fn activation_name(activation: Activation) -> &'static str {
    match activation {
        Activation::Identity => "identity",
        Activation::Relu => "relu",
        Activation::Clamp(..) => "clamp",
    }
}

/// A network: operations in an order to run in, and the lengths of the constants they refer to.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    pub(super) nodes: Vec<Node>,
    pub(super) inputs: Vec<Value>,
    /// Elements of each constant.
    pub(super) constants: Vec<usize>,
}

impl Graph {
    /// A graph without values.
    pub fn new() -> Self {
        Self::default()
    }

    /// The operations, in an order to run in; node i computes value i.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }
}
